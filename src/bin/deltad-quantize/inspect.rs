//! `inspect`: a file's keys and tensors, for people or as JSON.

use crate::args::Inspect;
use crate::failure::Failure;
use crate::table;
use deltad::stdio;
use ggml_kernels::gguf::{Array, GgufFile, Value};
use quantize::error::Error;
use quantize::schema;
use serde_json::{Value as Json, json};

/// Arrays up to this long are shown whole.
const SHORT: usize = 16;

pub fn run(args: &Inspect) -> Result<(), Failure> {
    let file = GgufFile::open(&args.file).map_err(|source| Error::Gguf {
        path: args.file.clone(),
        source,
    })?;
    let verdict = schema::check(&file).map(|_| ());
    if args.json {
        let tensors: Vec<Json> = file.tensors().iter().map(tensor).collect();
        let metadata: serde_json::Map<String, Json> = file
            .metadata()
            .map
            .iter()
            .map(|(key, value)| (key.clone(), json_of(value)))
            .collect();
        let whole = json!({
            "file": args.file,
            "bytes": file.map().len(),
            "alignment": file.alignment(),
            "runs": verdict.is_ok(),
            "refusal": verdict.err().map(|e| e.to_string()),
            "metadata": metadata,
            "tensors": tensors,
        });
        return stdio::line(format_args!("{whole:#}")).map_err(Failure::Output);
    }
    let mut rows = Vec::new();
    for (key, value) in &file.metadata().map {
        let shown = match json_of(value) {
            Json::String(text) => format!("{:?}", text.chars().take(70).collect::<String>()),
            other => other.to_string(),
        };
        rows.push(vec![key.clone(), value.type_name().to_owned(), shown]);
    }
    let mut page = table::of(&rows, &[]) + "\n";
    let mut rows = Vec::new();
    let mut values = 0;
    for t in file.tensors() {
        values += t.elements();
        rows.push(vec![
            t.name.clone(),
            table::shape(t.shape()),
            t.ty.to_string(),
            table::bytes(t.size as u64),
        ]);
    }
    page += &table::of(&rows, &[3]);
    page += &format!(
        "{} tensors, {:.1} M weights, {}\n",
        file.tensors().len(),
        values as f64 / 1e6,
        table::bytes(file.map().len() as u64)
    );
    page += &match verdict {
        Ok(()) => "deltad runs this file\n".to_owned(),
        Err(e) => format!("deltad does not run this file: {e}\n"),
    };
    stdio::print(page).map_err(Failure::Output)
}

fn tensor(t: &ggml_kernels::gguf::TensorInfo) -> Json {
    json!({
        "name": t.name,
        "type": t.ty.name(),
        "shape": t.shape(),
        "offset": t.offset,
        "bytes": t.size,
    })
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::U8(v) => json!(v),
        Value::I8(v) => json!(v),
        Value::U16(v) => json!(v),
        Value::I16(v) => json!(v),
        Value::U32(v) => json!(v),
        Value::I32(v) => json!(v),
        Value::F32(v) => json!(v),
        Value::Bool(v) => json!(v),
        Value::Str(v) => json!(v),
        Value::U64(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::F64(v) => json!(v),
        Value::Array(array) if array.len() > SHORT => json!({ "length": array.len() }),
        Value::Array(array) => match array {
            Array::U8(v) => json!(v),
            Array::I8(v) => json!(v),
            Array::U16(v) => json!(v),
            Array::I16(v) => json!(v),
            Array::U32(v) => json!(v),
            Array::I32(v) => json!(v),
            Array::F32(v) => json!(v),
            Array::Bool(v) => json!(v),
            Array::Str(v) => json!(v),
            Array::U64(v) => json!(v),
            Array::I64(v) => json!(v),
            Array::F64(v) => json!(v),
        },
    }
}
