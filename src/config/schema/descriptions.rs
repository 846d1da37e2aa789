//! Descriptions as an editor shows them.

use serde_json::Value;

/// Has paragraphs flow: a line of the source is none of a tooltip. Items of lists keep theirs.
pub fn let_flow(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == "description" => *text = flowing(text),
                    // As Taplo shows those of the values of a choice.
                    Value::Array(texts) if key == "enumValues" => {
                        for text in texts {
                            if let Value::String(text) = text {
                                *text = flowing(text);
                            }
                        }
                    }
                    value => let_flow(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(let_flow),
        _ => {}
    }
}

fn flowing(text: &str) -> String {
    let is_item = |line: &str| line.starts_with("- ") || line.starts_with("* ");
    let mut flowing = String::with_capacity(text.len());
    let mut before = "";
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if index > 0 {
            let ends = before.is_empty() || line.is_empty() || is_item(line);
            flowing.push(if ends { '\n' } else { ' ' });
        }
        flowing.push_str(if before.is_empty() { line } else { line.trim_start() });
        before = line;
    }
    flowing
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_of_a_paragraph_are_joined_and_paragraphs_and_items_are_not() {
        let text = "One\nparagraph.\n\nAnother one:\n- an item\n  of two lines\n- a second";
        let wanted = "One paragraph.\n\nAnother one:\n- an item of two lines\n- a second";
        let of = |text: &str| json!({ "items": [{ "description": text, "const": "a\nb", "enumValues": [null, text] }] });
        let mut schema = of(text);
        let_flow(&mut schema);
        assert_eq!(schema, of(wanted));
    }
}
