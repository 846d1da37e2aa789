//! The schema that editors read.

use serde_json::Value;

use super::toys::TOYS;
use crate::{
    config::schema::{FILE, pipeline_schema, write_schemas},
    stages::STAGES,
};

#[test]
fn a_stage_has_its_ports_and_parameters() {
    let schema = pipeline_schema(TOYS);
    let train = serde_json::to_string_pretty(&schema["definitions"]["stage_train"]).unwrap();
    insta::assert_snapshot!(train, @r##"
    {
      "additionalProperties": false,
      "allOf": [
        {
          "else": {
            "additionalProperties": true,
            "properties": {
              "modules": {
                "$ref": "#/definitions/Modules"
              }
            }
          },
          "if": {
            "properties": {
              "modules": {
                "pattern": "\\$\\{",
                "type": "string"
              }
            },
            "required": [
              "modules"
            ]
          }
        },
        {
          "else": {
            "additionalProperties": true,
            "properties": {
              "optimizer": {
                "$ref": "#/definitions/Optimizer"
              }
            }
          },
          "if": {
            "properties": {
              "optimizer": {
                "pattern": "\\$\\{",
                "type": "string"
              }
            },
            "required": [
              "optimizer"
            ]
          }
        },
        {
          "else": {
            "additionalProperties": true,
            "properties": {
              "rank": {
                "format": "uint32",
                "minimum": 0,
                "type": "integer"
              }
            }
          },
          "if": {
            "properties": {
              "rank": {
                "pattern": "\\$\\{",
                "type": "string"
              }
            },
            "required": [
              "rank"
            ]
          }
        },
        {
          "else": {
            "additionalProperties": true,
            "properties": {
              "steps": {
                "format": "uint32",
                "minimum": 0,
                "type": "integer"
              }
            }
          },
          "if": {
            "properties": {
              "steps": {
                "pattern": "\\$\\{",
                "type": "string"
              }
            },
            "required": [
              "steps"
            ]
          }
        }
      ],
      "description": "Trains.",
      "properties": {
        "inputs": {
          "additionalProperties": false,
          "description": "The stage on each input.",
          "properties": {
            "base": {
              "description": "The stage that gives lora_adapter.",
              "type": "string"
            },
            "pairs": {
              "description": "The stage that gives pairs.",
              "type": "string"
            }
          },
          "type": "object"
        },
        "kind": {
          "const": "train"
        },
        "modules": {
          "default": "qkvo",
          "description": "Layers."
        },
        "note": {
          "default": "",
          "description": "A note.",
          "type": "string"
        },
        "optimizer": {
          "additionalProperties": true,
          "default": {
            "lr": 0.0,
            "warmup": 0
          },
          "description": "Optimizer."
        },
        "rank": {
          "description": "The rank."
        },
        "steps": {
          "default": 0,
          "description": "Steps."
        }
      },
      "type": "object"
    }
    "##);
    let data = serde_json::to_string_pretty(&schema["definitions"]["From"]).unwrap();
    insta::assert_snapshot!(data, @r#"
    {
      "additionalProperties": true,
      "allOf": [
        {
          "if": {
            "properties": {
              "source": {
                "const": "figures"
              }
            },
            "required": [
              "source"
            ]
          },
          "then": {
            "additionalProperties": false,
            "description": "Drawn.",
            "properties": {
              "source": {
                "const": "figures",
                "type": "string"
              }
            },
            "required": [
              "source"
            ],
            "type": "object"
          }
        },
        {
          "if": {
            "properties": {
              "source": {
                "const": "folder"
              }
            },
            "required": [
              "source"
            ]
          },
          "then": {
            "additionalProperties": false,
            "allOf": [
              {
                "else": {
                  "additionalProperties": true,
                  "properties": {
                    "limit": {
                      "format": "uint8",
                      "maximum": 255,
                      "minimum": 0,
                      "type": "integer"
                    }
                  }
                },
                "if": {
                  "properties": {
                    "limit": {
                      "pattern": "\\$\\{",
                      "type": "string"
                    }
                  },
                  "required": [
                    "limit"
                  ]
                }
              }
            ],
            "description": "A folder.",
            "properties": {
              "limit": {
                "description": "At most so many."
              },
              "root": {
                "description": "The folder.",
                "format": "path",
                "type": "string"
              },
              "source": {
                "const": "folder",
                "type": "string"
              }
            },
            "required": [
              "source",
              "root"
            ],
            "type": "object"
          }
        },
        {
          "else": {
            "additionalProperties": true,
            "properties": {
              "source": {
                "enum": [
                  "figures",
                  "folder"
                ]
              }
            }
          },
          "if": {
            "properties": {
              "source": {
                "pattern": "\\$\\{",
                "type": "string"
              }
            },
            "required": [
              "source"
            ]
          }
        }
      ],
      "description": "Where pictures come from.",
      "properties": {
        "source": {}
      },
      "required": [
        "source"
      ],
      "type": "object"
    }
    "#);
}

#[test]
fn each_kind_has_its_branch() {
    let schema = pipeline_schema(TOYS);
    let all = schema["definitions"]["stage"]["allOf"].as_array().unwrap();
    let (branches, musts) = all.split_at(3);
    for branches in [branches, musts] {
        let kinds = branches.iter().map(|branch| &branch["if"]["properties"]["kind"]["const"]);
        assert_eq!(kinds.collect::<Vec<_>>(), ["data", "train", "score"]);
    }
    assert_eq!(musts[1]["then"]["required"], serde_json::json!(["kind", "inputs", "rank"]));
    assert_eq!(schema["definitions"]["stage_over"]["allOf"].as_array().unwrap(), branches);
    for branch in branches {
        let name = branch["then"]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        assert_eq!(schema["definitions"][name]["additionalProperties"], false);
    }
}

#[test]
fn a_value_of_several_types_has_a_condition_for_each() {
    let schema = pipeline_schema(STAGES);
    let train = &schema["definitions"]["stage_lora_train"];
    assert_eq!(
        train["properties"]["image_latent_scale"]["type"],
        serde_json::json!(["number", "string"])
    );
    let conditions = train["allOf"].as_array().unwrap().iter();
    let conditions: Vec<_> = conditions
        .filter(|condition| condition["if"]["required"][0] == "image_latent_scale")
        .map(ToString::to_string)
        .collect();
    insta::assert_snapshot!(conditions.join("\n"), @r##"
    {"if":{"properties":{"image_latent_scale":{"type":"number"}},"required":["image_latent_scale"]},"then":{"additionalProperties":true,"properties":{"image_latent_scale":{"description":"The multiple itself.","format":"double","type":"number"}}}}
    {"if":{"properties":{"image_latent_scale":{"not":{"pattern":"\\$\\{","type":"string"},"type":"string"}},"required":["image_latent_scale"]},"then":{"additionalProperties":true,"properties":{"image_latent_scale":{"$ref":"#/definitions/ScaleRule"}}}}
    "##);
}

/// Some editors take a table that says nothing of further keys for closed.
#[test]
fn every_table_says_whether_it_is_open() {
    fn check(schema: &Value, path: &str) {
        match schema {
            Value::Object(object) => {
                let is_table = object.get("type") == Some(&Value::from("object"));
                assert!(!is_table || object.contains_key("additionalProperties"), "{path}");
                assert_ne!(object.get("type"), Some(&Value::from("null")), "{path}");
                // A condition asks about keys and closes nothing.
                let rules = object.iter().filter(|(key, _)| *key != "if");
                rules.for_each(|(key, value)| check(value, &format!("{path}/{key}")));
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, path)),
            _ => {}
        }
    }
    check(&pipeline_schema(STAGES), "");
}

#[test]
fn every_reference_of_the_schema_leads_somewhere() {
    let schema = pipeline_schema(TOYS);
    let text = schema.to_string();
    for part in text.split("\"#/definitions/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schema["definitions"].get(name).is_some(), "{name}");
    }
}

#[test]
fn the_written_file_is_the_schema() {
    let folder = tempfile::tempdir().unwrap();
    write_schemas(TOYS, folder.path()).unwrap();
    let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), pipeline_schema(TOYS));
}
