//! The published schemas of the four files, generated from the types that read them. `SLUICEGATE_BLESS=1 cargo test -p
//! sluicegate-pipeline` writes them anew.

use std::{borrow::Cow, path::Path};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, transform::RecursiveTransform};
use serde_json::Value;

use crate::yaml::{Given, Longer, Ordered, TextOr, Truth};

impl<T: JsonSchema> JsonSchema for Ordered<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("MapOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": value })
    }
}

impl<T: JsonSchema + Longer> JsonSchema for TextOr<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("TextOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let more = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "string" }, more] })
    }
}

impl JsonSchema for Given {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Reserved".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "not": {} })
    }
}

impl JsonSchema for Truth {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Truth".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

/// A key that may be left out is not therefore one that may be null.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    // What the generator notes of Rust's own types says nothing about a text.
    object.remove("format");
    object.remove("default");
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            object.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(any)) = object.get_mut("anyOf") {
        any.retain(|schema| schema.get("type") != Some(&"null".into()));
        if let [Value::Object(one)] = any.as_slice() {
            let one = one.clone();
            object.remove("anyOf");
            for (key, value) in one {
                object.entry(key).or_insert(value);
            }
        }
    }
}

#[test]
fn the_published_schemas_are_those_of_the_types_that_read_the_files() {
    for (name, mut schema) in [
        ("sluicegate", crate::pipeline::of_pipeline()),
        ("gateway", schemars::schema_for!(crate::gateway::WireGateway)),
        ("trust", schemars::schema_for!(crate::trust::WireTrust)),
        ("waivers", schemars::schema_for!(crate::waivers::WireWaivers)),
    ] {
        schemars::transform::Transform::transform(&mut RecursiveTransform(without_null), &mut schema);
        schema.insert("$id".to_owned(), format!("https://sluicegate.dev/schemas/{name}.schema.json").into());
        let text =
            serde_json::to_string_pretty(&schema).unwrap().replace("\"Wire", "\"").replace("/$defs/Wire", "/$defs/");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schemas/{name}.schema.json"));
        if std::env::var_os("SLUICEGATE_BLESS").is_some() {
            std::fs::write(&path, text + "\n").unwrap();
        } else {
            let published = std::fs::read_to_string(&path).unwrap();
            assert_eq!(published, text + "\n", "{name}: run this test with SLUICEGATE_BLESS=1");
        }
    }
}
