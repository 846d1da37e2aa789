//! Reads typed values from the tree; an error carries the place of the innermost bad value.

use std::fmt;

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess,
        VariantAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{Data, Entry, Node, ValueError, ValueProblem};

impl<'de> Deserializer<'de> for &'de Node {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        let result = match &self.data {
            Data::Null => visitor.visit_unit(),
            Data::Bool(b) => visitor.visit_bool(*b),
            Data::Integer(n) => visitor.visit_i64(*n),
            Data::Unsigned(n) => visitor.visit_u64(*n),
            Data::Float(n) => visitor.visit_f64(*n),
            Data::String(s) => visitor.visit_borrowed_str(s),
            Data::Array(items) => visit_array(items, visitor),
            Data::Table(table) => visitor.visit_map(Entries { entries: table.iter(), value: None }),
        };
        result.map_err(|error| error.located(self))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.data {
            Data::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|error| error.located(self))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self).map_err(|error| error.located(self))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let result = match &self.data {
            Data::String(variant) => visitor.visit_enum(Variant { name: variant, content: None }),
            Data::Table(table) if table.len() == 1 => {
                let (variant, entry) = table.get_index(0).expect("it has one entry");
                visitor.visit_enum(Variant { name: variant, content: Some(&entry.node) })
            }
            Data::Table(_) => Err(ValueError::custom(format!(
                "the table must have exactly one key, one of {}",
                variants.join(", ")
            ))),
            _ => {
                let expected = format!("one of {}", variants.join(", "));
                Err(ValueError::new(ValueProblem::Type { found: self.describe(), expected }))
            }
        };
        result.map_err(|error| error.located(self))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

fn visit_array<'de, V: Visitor<'de>>(
    items: &'de [Node],
    visitor: V,
) -> Result<V::Value, ValueError> {
    struct Wanted(String);
    impl Expected for Wanted {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    }
    let wanted = Wanted((&visitor as &dyn Expected).to_string());
    let mut access = Items { items: items.iter(), index: 0 };
    let value = visitor.visit_seq(&mut access)?;
    if access.items.len() > 0 {
        return Err(ValueError::invalid_length(items.len(), &wanted));
    }
    Ok(value)
}

struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for &mut Items<'de> {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ValueError> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index.to_string();
        self.index += 1;
        seed.deserialize(item).map(Some).map_err(|error| error.located(item).under(&index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'de> {
    entries: indexmap::map::Iter<'de, String, Entry>,
    value: Option<(&'de str, &'de Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ValueError> {
        let Some((key, entry)) = self.entries.next() else { return Ok(None) };
        self.value = Some((key, &entry.node));
        let deserializer: StrDeserializer<'_, ValueError> = key.as_str().into_deserializer();
        seed.deserialize(deserializer).map(Some).map_err(|error| error.at_key(entry.key).under(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<T::Value, ValueError> {
        let (key, node) = self.value.take().expect("serde asks for a key first");
        seed.deserialize(node).map_err(|error| error.located(node).under(key))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

struct Variant<'de> {
    name: &'de str,
    content: Option<&'de Node>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = ValueError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self), ValueError> {
        let name: StrDeserializer<'_, ValueError> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> Variant<'de> {
    fn content(&self) -> Result<&'de Node, ValueError> {
        self.content.ok_or_else(|| {
            ValueError::custom(format!("`{}` needs values: write it as a table", self.name))
        })
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = ValueError;

    fn unit_variant(self) -> Result<(), ValueError> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(ValueError::custom(format!(
                "`{}` takes no values: write it as a string",
                self.name
            ))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, ValueError> {
        let content = self.content()?;
        seed.deserialize(content).map_err(|error| error.located(content).under(self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.content()?.deserialize_any(visitor).map_err(|error| error.under(self.name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.content()?.deserialize_any(visitor).map_err(|error| error.under(self.name))
    }
}

impl<'de> IntoDeserializer<'de, ValueError> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
