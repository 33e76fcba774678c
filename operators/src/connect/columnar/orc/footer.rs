//! The tail of an ORC file: its compression, its types and the positions of its stripes.
//!
//! Every length that it declares is checked against the file's length and the limits below before
//! memory is reserved.

use super::stream::{BLOCK_BYTES_MAX, ByteSource, Codec, Compression, Stream};
use crate::connect::columnar::orc::protobuf;
use crate::connect::columnar::orc::protobuf::Item;
use crate::table::types::{DataType, Field, Schema};

/// The maximum size of a decompressed footer, in bytes.
const FOOTER_BYTES_MAX: usize = 64 << 20;
/// The maximum nesting depth of types.
const DEPTH_MAX: usize = 64;
/// The type attribute in which Spark stores a column's SQL type.
pub const SPARK_TYPE: &str = "spark.sql.catalyst.type";

/// The kinds of types, numbered as in the ORC specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    Byte,
    Short,
    Int,
    Long,
    Float,
    Double,
    String,
    Binary,
    Timestamp,
    List,
    Map,
    Struct,
    Union,
    Decimal,
    Date,
    Varchar,
    Char,
    TimestampInstant,
}

impl Kind {
    const ALL: [Self; 19] = [
        Self::Boolean,
        Self::Byte,
        Self::Short,
        Self::Int,
        Self::Long,
        Self::Float,
        Self::Double,
        Self::String,
        Self::Binary,
        Self::Timestamp,
        Self::List,
        Self::Map,
        Self::Struct,
        Self::Union,
        Self::Decimal,
        Self::Date,
        Self::Varchar,
        Self::Char,
        Self::TimestampInstant,
    ];
}

/// A type of the file's type tree: a column or a part of one.
#[derive(Clone, Debug)]
pub struct Type {
    /// The type's index in the type tree. Streams and encodings of a stripe refer to it.
    pub id: usize,
    pub kind: Kind,
    /// The children and their names: the element of a list, the key and value of a map, or the
    /// fields of a struct. Only fields of structs have names.
    pub children: Vec<(String, Type)>,
    /// Precision and scale, meaningful for decimals only.
    pub decimal: (u8, u8),
    /// The SQL type from the attribute [`SPARK_TYPE`]; `None` without this attribute.
    pub spark: Option<String>,
}

/// A type as encoded in the footer, before it is checked.
struct Written {
    kind: u64,
    children: Vec<usize>,
    names: Vec<String>,
    precision: Option<u64>,
    scale: Option<u64>,
    spark: Option<String>,
}

/// The position of a stripe in the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stripe {
    offset: u64,
    index_bytes: u64,
    data_bytes: u64,
    footer_bytes: u64,
    /// The number of rows in the stripe.
    pub rows: u64,
}

/// The decoded tail of a file.
#[derive(Clone, Debug)]
pub struct Footer {
    /// The compression of all parts of the file except the postscript.
    pub compression: Compression,
    /// The type of a row: a struct whose fields are the columns.
    pub root: Type,
    /// The stripes, in file order.
    pub stripes: Vec<Stripe>,
    /// Whether dates and timestamps use the hybrid calendar (Julian before 1582-10-15).
    pub hybrid_calendar: bool,
}

/// The position of a stream in the file.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The stream's kind, as numbered by the ORC specification.
    pub kind: u64,
    /// The index of the type that the stream belongs to.
    pub column: usize,
    /// The stream's first byte, as an offset in the file.
    pub at: u64,
    /// The stream's length in bytes.
    pub length: u64,
}

/// The decoded footer of a stripe.
#[derive(Clone, Debug, Default)]
pub struct StripeFooter {
    /// The streams, in file order.
    pub parts: Vec<Part>,
    /// For each type its encoding, by number, and the size of its dictionary.
    pub encodings: Vec<(u64, u64)>,
    /// The time zone of the stripe's writer, if the footer names one.
    pub zone: Option<String>,
}

fn damaged(part: &str) -> String {
    format!("{part} of the file cannot be read: it is damaged")
}

/// Reads the tail of a file. Returns `None` for an empty file. An error if the file is not ORC, is
/// truncated or damaged, or uses a feature that is not supported.
pub fn read(file: &ByteSource) -> Result<Option<Footer>, String> {
    let length = file.len().map_err(|error| error.to_string())?;
    if length == 0 {
        return Ok(None);
    }
    let mut tail = Vec::new();
    let tail_bytes = length.min(256);
    file.read(length - tail_bytes, tail_bytes as usize, &mut tail)?;
    let size = usize::from(tail[tail.len() - 1]);
    let script = tail.len().checked_sub(1 + size).map(|from| &tail[from..tail.len() - 1]);
    let script = script.ok_or("it is not an ORC file: it is too short")?;
    let (mut codec, mut block, mut footer_bytes, mut magic) = (0, 256 << 10, 0, Vec::new());
    let read = protobuf::fields(script, |field, item| {
        match field {
            1 => footer_bytes = item.number(),
            2 => codec = item.number(),
            3 => block = item.number(),
            8000 => magic = item.bytes().to_vec(),
            _ => {}
        }
        Some(())
    });
    if read.is_none() || magic != b"ORC" || footer_bytes == 0 {
        return Err("it is not an ORC file, or it is truncated".to_string());
    }
    let codec = Codec::of(codec)?;
    let block = usize::try_from(block).ok().filter(|block| *block <= BLOCK_BYTES_MAX);
    let block = block.ok_or_else(|| {
        format!("its blocks have more than {} MiB, decompressed", BLOCK_BYTES_MAX >> 20)
    })?;
    let compression = Compression { codec, block };
    let end = length - 1 - size as u64;
    let at = end.checked_sub(footer_bytes).ok_or_else(|| damaged("the footer"))?;
    let bytes = Stream::new(file.clone(), compression, at, footer_bytes).all(FOOTER_BYTES_MAX)?;
    footer(&bytes, compression, at).map(Some)
}

fn footer(bytes: &[u8], compression: Compression, end: u64) -> Result<Footer, String> {
    let (mut types, mut stripes, mut calendar, mut encrypted) = (Vec::new(), Vec::new(), 0, false);
    let read = protobuf::fields(bytes, |field, item| {
        match field {
            3 => stripes.push(stripe(item)?),
            4 => types.push(written(item)?),
            10 => {
                // An encryption entry with variants means that columns are encrypted.
                protobuf::fields(item.bytes(), |field, _| {
                    encrypted |= field == 3;
                    Some(())
                })?;
            }
            11 => calendar = item.number(),
            _ => {}
        }
        Some(())
    });
    read.ok_or_else(|| damaged("the footer"))?;
    if encrypted {
        return Err("it has encrypted columns, which are not supported".to_string());
    }
    for stripe in &stripes {
        let all = [stripe.offset, stripe.index_bytes, stripe.data_bytes, stripe.footer_bytes];
        let sum = all.iter().try_fold(0u64, |sum, bytes| sum.checked_add(*bytes));
        if sum.is_none_or(|sum| sum > end) {
            return Err(damaged("a stripe"));
        }
    }
    let mut left = types.len();
    // Old writers omit the types of a file without rows.
    let root = match types.is_empty() {
        true if stripes.is_empty() => {
            Type { id: 0, kind: Kind::Struct, children: Vec::new(), decimal: (38, 10), spark: None }
        }
        _ => tree(&types, 0, 0, &mut left)?,
    };
    if root.kind != Kind::Struct {
        return Err("it has no columns: its rows are not structs".to_string());
    }
    Ok(Footer { compression, root, stripes, hybrid_calendar: calendar != 2 })
}

fn stripe(item: Item<'_>) -> Option<Stripe> {
    let mut found = Stripe::default();
    protobuf::fields(item.bytes(), |field, item| {
        match field {
            1 => found.offset = item.number(),
            2 => found.index_bytes = item.number(),
            3 => found.data_bytes = item.number(),
            4 => found.footer_bytes = item.number(),
            5 => found.rows = item.number(),
            _ => {}
        }
        Some(())
    })?;
    Some(found)
}

fn written(item: Item<'_>) -> Option<Written> {
    let mut found = Written {
        kind: 0,
        children: Vec::new(),
        names: Vec::new(),
        precision: None,
        scale: None,
        spark: None,
    };
    protobuf::fields(item.bytes(), |field, item| {
        match (field, item) {
            (1, item) => found.kind = item.number(),
            (2, Item::Number(child)) => found.children.push(usize::try_from(child).ok()?),
            (2, Item::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    let child = protobuf::varint(&mut packed)?;
                    found.children.push(usize::try_from(child).ok()?);
                }
            }
            (3, item) => found.names.push(item.text()),
            (5, item) => found.precision = Some(item.number()),
            (6, item) => found.scale = Some(item.number()),
            (7, item) => {
                let (mut key, mut value) = (String::new(), String::new());
                protobuf::fields(item.bytes(), |field, item| {
                    match field {
                        1 => key = item.text(),
                        2 => value = item.text(),
                        _ => {}
                    }
                    Some(())
                })?;
                if key == SPARK_TYPE {
                    found.spark = Some(value);
                }
            }
            _ => {}
        }
        Some(())
    })?;
    Some(found)
}

/// Decodes the type at index `id` with its children. `left` limits how many types may still follow,
/// so that a corrupt footer with shared children cannot blow up. An error if the tree is damaged or
/// nested too deeply, or has a type or a precision that is not supported.
fn tree(types: &[Written], id: usize, depth: usize, left: &mut usize) -> Result<Type, String> {
    let found = types.get(id).ok_or_else(|| damaged("the schema"))?;
    *left = left.checked_sub(1).ok_or_else(|| damaged("the schema"))?;
    if depth > DEPTH_MAX {
        return Err(format!("its types are nested more than {DEPTH_MAX} levels deep"));
    }
    let kind = usize::try_from(found.kind).ok().and_then(|kind| Kind::ALL.get(kind).copied());
    let kind = kind.ok_or_else(|| format!("it has a column of a type {} not known", found.kind))?;
    let (precision, scale) = (found.precision.unwrap_or(38), found.scale.unwrap_or(10));
    if kind == Kind::Decimal && (precision > 38 || scale > precision || precision == 0) {
        return Err(format!("it has a column of type DECIMAL({precision},{scale})"));
    }
    let parts = match kind {
        Kind::List => Some(1),
        Kind::Map => Some(2),
        Kind::Struct => Some(found.names.len()),
        Kind::Union => None,
        _ => Some(0),
    };
    if parts.is_some_and(|parts| parts != found.children.len()) {
        return Err(damaged("the schema"));
    }
    let mut children = Vec::new();
    for (i, child) in found.children.iter().enumerate() {
        if *child <= id {
            return Err(damaged("the schema"));
        }
        let name = found.names.get(i).cloned().unwrap_or_default();
        children.push((name, tree(types, *child, depth + 1, left)?));
    }
    let decimal = (precision as u8, scale as u8);
    Ok(Type { id, kind, children, decimal, spark: found.spark.clone() })
}

impl Type {
    /// The SQL type that the column is read as. The error is the name of an unsupported type, of
    /// the column or of a part of it, or a Spark type that does not parse.
    pub fn data_type(&self) -> Result<DataType, String> {
        let part = |i: usize| self.children[i].1.data_type();
        let long = matches!(self.kind, Kind::Int | Kind::Long | Kind::Timestamp);
        if let Some(spark) = self.spark.as_deref().filter(|_| long)
            && let Some(marked) = self.marked(spark)?
        {
            return Ok(marked);
        }
        Ok(match self.kind {
            Kind::Boolean => DataType::Boolean,
            Kind::Byte => DataType::Byte,
            Kind::Short => DataType::Short,
            Kind::Int => DataType::Int,
            Kind::Long => DataType::Long,
            Kind::Float => DataType::Float,
            Kind::Double => DataType::Double,
            Kind::String | Kind::Varchar | Kind::Char => DataType::String,
            Kind::Binary => DataType::Binary,
            Kind::Timestamp | Kind::TimestampInstant => DataType::Timestamp,
            Kind::Decimal => DataType::Decimal(self.decimal.0, self.decimal.1),
            Kind::Date => DataType::Date,
            Kind::List => DataType::Array(Box::new(part(0)?)),
            Kind::Map => DataType::Map(Box::new(part(0)?), Box::new(part(1)?)),
            Kind::Struct => DataType::Struct(self.fields()?),
            Kind::Union => return Err("UNION".to_string()),
        })
    }

    /// The SQL type of Spark's attribute. `None` if it does not refine this ORC type: only
    /// intervals and TIMESTAMP_NTZ do. The error is the attribute in upper case, if it does not
    /// parse.
    fn marked(&self, spark: &str) -> Result<Option<DataType>, String> {
        let marked = Schema::parse_ddl(&format!("c {spark}"));
        let marked = marked.ok().and_then(|schema| schema.fields.into_iter().next());
        let Some(marked) = marked.map(|field| field.data_type) else {
            return Err(spark.to_ascii_uppercase());
        };
        Ok(match (self.kind, &marked) {
            (Kind::Int, DataType::YearMonthInterval(..))
            | (Kind::Long, DataType::DayTimeInterval(..) | DataType::TimestampNtz)
            | (Kind::Timestamp, DataType::TimestampNtz) => Some(marked),
            _ => None,
        })
    }

    /// The fields of a struct as SQL fields.
    pub fn fields(&self) -> Result<Vec<Field>, String> {
        let field = |(name, of): &(String, Type)| Ok(Field::new(name, of.data_type()?, true));
        self.children.iter().map(field).collect()
    }

    /// The schema of a file; `self` is the root type. Fails on a column of an unsupported type.
    pub fn schema(&self) -> Result<Schema, String> {
        let mut fields = Vec::new();
        for (name, of) in &self.children {
            let data_type = of.data_type().map_err(|what| {
                format!("column `{name}` has the type {what}, which is not supported")
            })?;
            fields.push(Field::new(name, data_type, true));
        }
        Ok(Schema::new(fields))
    }

    /// The name of the type in error messages.
    pub fn name(&self) -> String {
        self.data_type().map_or_else(|name| name, |data_type| data_type.to_string())
    }
}

impl Stripe {
    /// Reads the footer of the stripe. An error if it is unreadable or damaged, or if the streams
    /// that it lists exceed the stripe.
    pub fn footer(
        &self,
        file: &ByteSource,
        compression: Compression,
    ) -> Result<StripeFooter, String> {
        let at = self.offset + self.index_bytes + self.data_bytes;
        let stream = Stream::new(file.clone(), compression, at, self.footer_bytes);
        let bytes = stream.all(FOOTER_BYTES_MAX)?;
        let (mut found, mut next) = (StripeFooter::default(), self.offset);
        let read = protobuf::fields(&bytes, |field, item| {
            match field {
                1 => {
                    let mut part = Part { kind: 0, column: 0, at: next, length: 0 };
                    protobuf::fields(item.bytes(), |field, item| {
                        match field {
                            1 => part.kind = item.number(),
                            2 => part.column = usize::try_from(item.number()).ok()?,
                            3 => part.length = item.number(),
                            _ => {}
                        }
                        Some(())
                    })?;
                    next = next.checked_add(part.length).filter(|next| *next <= at)?;
                    found.parts.push(part);
                }
                2 => {
                    let mut encoding = (0, 0);
                    protobuf::fields(item.bytes(), |field, item| {
                        match field {
                            1 => encoding.0 = item.number(),
                            2 => encoding.1 = item.number(),
                            _ => {}
                        }
                        Some(())
                    })?;
                    found.encodings.push(encoding);
                }
                3 => found.zone = Some(item.text()).filter(|zone| !zone.is_empty()),
                _ => {}
            }
            Some(())
        });
        read.ok_or_else(|| damaged("the footer of a stripe"))?;
        Ok(found)
    }
}
