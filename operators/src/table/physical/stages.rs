//! The stateless row stages. Rows are borrowed, so a chain copies only what it computes.

use crate::table::expr::common_subexpression::eliminate_common_subexpressions;
use crate::table::expr::compile::{
    BoolFn, BytesFn, Compiled, Cx, EvalError, Semantics, compile, fold, text, write_field,
};
use crate::table::expr::functions::Splitter;
use crate::table::expr::functions::canonical_double;
use crate::table::expr::{Node, Resolved};
use crate::table::plan::generator::{Generator, GeneratorOutput};
use crate::table::row::{Array, Map, Row, RowBuf, RowWriter, Slot};
use crate::table::types::{DataType, Physical};
use bumpalo::Bump;
use millstream_engine::checkpoint::key_group::{hash_bytes, instance_of};
use millstream_engine::error::EngineError;
use millstream_engine::event::{Event, Record};
use millstream_engine::pass_control;
use millstream_engine::runtime::exchange::Outbox;
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};
use std::fmt::Write;

/// With more keys than this, the first keys that are emitted are likely to miss the cache.
const MANY: usize = 4096;

/// The number of keys to emit in one step, of `of` keys in total. With few keys the step is large,
/// so that the sink writes rarely. With many keys it is small, so that a step stays short: among a
/// million idle keys, each of the first few hundred took 10 to 35 us, so 64 of them would take over
/// a millisecond (`millstream bench window hold`).
pub(super) fn step(of: usize) -> usize {
    if of > MANY { 8 } else { 64 }
}

/// A stage that receives borrowed rows.
pub trait RowPush: for<'a> Push<Row<'a>> {}
impl<S: for<'a> Push<Row<'a>>> RowPush for S {}

/// A chain of row stages.
pub type BoxChain = Box<dyn RowPush>;

/// Maximum number of bytes that an arena keeps between records.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// An arena that lives as long as one record.
///
/// It keeps its largest chunk between records, so it stops allocating once it has seen the largest
/// record.
#[derive(Default)]
pub(super) struct Scratch(Bump);

impl Scratch {
    #[inline]
    pub fn cx<'a>(&'a self, row: Row<'a>) -> Cx<'a> {
        Cx::new(row, &self.0)
    }

    /// Like [`cx`](Self::cx), for expressions with common subexpressions.
    #[inline]
    pub fn sharing<'a>(&'a self, row: Row<'a>, parts: usize) -> Cx<'a> {
        Cx::sharing(row, &self.0, parts)
    }

    #[inline]
    pub fn reset(&mut self) {
        if self.0.allocated_bytes() > KEPT_BYTES_MAX {
            self.0 = Bump::new();
        }
        self.0.reset();
    }
}

/// The start of an expression's text, for error messages of its evaluation.
struct Excerpt(String);

/// The maximum length of an [`Excerpt`], in bytes.
const EXCERPT_BYTES_MAX: usize = 120;

impl Excerpt {
    fn of(expr: &Resolved) -> Self {
        let mut text = Self(String::new());
        if write!(text, "{expr}").is_err() {
            text.0.push('…');
        }
        text
    }

    /// Adds the expression to an error that its evaluation raised.
    #[cold]
    fn put_into(&self, error: EvalError) -> EngineError {
        let EvalError { condition, mut reason, fix, .. } = error;
        let _ = write!(reason, ", in `{}`", self.0);
        EngineError::operator(condition, reason, fix)
    }
}

impl Write for Excerpt {
    /// Fails as soon as the text exceeds the limit, which ends formatting early.
    fn write_str(&mut self, more: &str) -> std::fmt::Result {
        for c in more.chars() {
            if self.0.len() + c.len_utf8() > EXCERPT_BYTES_MAX {
                return Err(std::fmt::Error);
            }
            self.0.push(c);
        }
        Ok(())
    }
}

/// Computes the columns of the output row.
pub(super) struct Project {
    columns: Vec<Compiled>,
    excerpts: Vec<Excerpt>,
    /// The number of common subexpressions.
    parts: usize,
    scratch: Scratch,
    out: Vec<u8>,
    down: BoxChain,
}

impl Project {
    /// Creates a projection by expressions over rows of `width` columns.
    pub fn new(exprs: Vec<Resolved>, width: usize, semantics: Semantics, down: BoxChain) -> Self {
        let excerpts = exprs.iter().map(Excerpt::of).collect();
        let exprs = exprs.into_iter().map(|expr| fold(expr, semantics)).collect();
        let (exprs, parts) = eliminate_common_subexpressions(exprs);
        let columns = exprs.iter().map(|expr| compile(expr, width, semantics)).collect();
        Self { columns, excerpts, parts, scratch: Scratch::default(), out: Vec::new(), down }
    }
}

impl Stage for Project {
    pass_control!(down);
}

impl<'a> Push<Row<'a>> for Project {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        self.out.clear();
        let mut writer = RowWriter::new(&mut self.out, self.columns.len());
        let cx = self.scratch.sharing(row, self.parts);
        for (index, column) in self.columns.iter().enumerate() {
            if let Err(error) = write_field(column, cx, &mut writer, index) {
                return Err(self.excerpts[index].put_into(*error));
            }
        }
        self.down.push(Row(&self.out), ingest_ns)
    }
}

/// Passes on the rows for which a condition is true.
pub(super) struct Filter {
    condition: BoolFn,
    excerpt: Excerpt,
    /// The number of common subexpressions.
    parts: usize,
    scratch: Scratch,
    down: BoxChain,
}

impl Filter {
    pub fn new(condition: &Resolved, width: usize, semantics: Semantics, down: BoxChain) -> Self {
        let excerpt = Excerpt::of(condition);
        let (mut shared, parts) =
            eliminate_common_subexpressions(vec![fold(condition.clone(), semantics)]);
        let condition = match shared.pop() {
            Some(condition) => compile(&condition, width, semantics).bool(),
            None => unreachable!("one was given"),
        };
        Self { condition, excerpt, parts, scratch: Scratch::default(), down }
    }
}

impl Stage for Filter {
    pass_control!(down);
}

impl<'a> Push<Row<'a>> for Filter {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        match (self.condition)(self.scratch.sharing(row, self.parts)) {
            Ok(Some(true)) => self.down.push(row, ingest_ns),
            Ok(_) => Ok(()),
            Err(error) => Err(self.excerpt.put_into(*error)),
        }
    }
}

#[inline]
pub(super) fn copy(
    writer: &mut RowWriter<'_, Vec<u8>>,
    to: usize,
    row: Row<'_>,
    slot: Slot,
    kind: Physical,
) {
    if row.is_null(slot) {
        return;
    }
    match kind {
        Physical::Bool | Physical::Long => writer.long(to, row.long(slot)),
        Physical::Double => writer.double(to, row.double(slot)),
        Physical::Decimal | Physical::Bytes => writer.bytes(to, row.bytes(slot)),
    }
}

/// Emits a row for each element of a generator's array, with the input's columns and the
/// generator's.
///
/// `needed` marks the input columns that are read below; the others stay NULL.
pub(super) struct Generate {
    array: BytesFn,
    /// `explode(split(text, 'x'))`: the text and its separator. The parts are emitted without
    /// building an array.
    split: Option<(BytesFn, Splitter)>,
    data_type: DataType,
    output: GeneratorOutput,
    with_position: bool,
    outer: bool,
    /// The copied columns: slot in the input, index in the output, physical type.
    copied: Vec<(Slot, usize, Physical)>,
    /// The number of input columns, and of output columns.
    width: usize,
    out_width: usize,
    scratch: Scratch,
    out: Vec<u8>,
    down: BoxChain,
}

impl Generate {
    pub fn new(
        generator: &Generator,
        input: &[&DataType],
        needed: &[bool],
        semantics: Semantics,
        down: BoxChain,
    ) -> Self {
        let width = input.len();
        let copied = (0..width).filter(|i| needed[*i]);
        let copied = copied.map(|i| (Slot::new(i, width), i, input[i].physical())).collect();
        let folded = fold(generator.array.clone(), semantics);
        let simple = generator.output == GeneratorOutput::Element && !generator.with_position;
        let split = match &folded.node {
            Node::Call("split", args) if simple && args.len() == 2 => args[1]
                .literal_text()
                .and_then(|pattern| Splitter::new(pattern).ok())
                .map(|splitter| (compile(&args[0], width, semantics).bytes(), splitter)),
            _ => None,
        };
        let array = compile(&folded, width, semantics).bytes();
        Self {
            array,
            split,
            data_type: generator.array.data_type.clone(),
            output: generator.output,
            with_position: generator.with_position,
            outer: generator.outer,
            copied,
            width,
            out_width: width + generator.columns().len(),
            scratch: Scratch::default(),
            out: Vec::new(),
            down,
        }
    }
}

/// Starts an output row with the input's columns and, if requested, the position.
#[inline]
fn begin<'o>(
    out: &'o mut Vec<u8>,
    out_width: usize,
    copied: &[(Slot, usize, Physical)],
    row: Row<'_>,
) -> RowWriter<'o, Vec<u8>> {
    out.clear();
    let mut writer = RowWriter::new(out, out_width);
    for (from, to, kind) in copied {
        copy(&mut writer, *to, row, *from, *kind);
    }
    writer
}

impl Stage for Generate {
    pass_control!(down);
}

impl Generate {
    /// Emits a row for each part of a text. The common columns are written only once.
    fn parts(&mut self, row: Row<'_>, ingest_ns: u64) -> Result<bool, EngineError> {
        let Some((text_of, splitter)) = &self.split else { return Ok(false) };
        let cx = self.scratch.cx(row);
        let Some(bytes) = text_of(cx)? else {
            if self.outer {
                begin(&mut self.out, self.out_width, &self.copied, row);
                self.down.push(Row(&self.out), ingest_ns)?;
            }
            return Ok(true);
        };
        begin(&mut self.out, self.out_width, &self.copied, row);
        let (out, down, width) = (&mut self.out, &mut self.down, self.width);
        let common = out.len();
        let mut outcome = Ok(());
        splitter.parts(text(bytes), -1, cx.arena, |part| {
            if outcome.is_ok() {
                out.truncate(common);
                RowWriter::resume(out, self.out_width).bytes(width, part.as_bytes());
                outcome = down.push(Row(out), ingest_ns);
            }
        })?;
        outcome.map(|()| true)
    }
}

impl<'a> Push<Row<'a>> for Generate {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        if self.split.is_some() && self.parts(row, ingest_ns)? {
            return Ok(());
        }
        let bytes = (self.array)(self.scratch.cx(row))?;
        let (out, down) = (&mut self.out, &mut self.down);
        let first = self.width + usize::from(self.with_position);
        let entries = match (&self.data_type, bytes) {
            (_, None) => 0,
            (DataType::Map(..), Some(bytes)) => Map::new(bytes).len,
            (_, Some(bytes)) => Array::new(bytes).len,
        };
        if entries == 0 && self.outer {
            begin(out, self.out_width, &self.copied, row);
            return down.push(Row(out), ingest_ns);
        }
        for index in 0..entries {
            let mut writer = begin(out, self.out_width, &self.copied, row);
            if self.with_position {
                writer.long(self.width, index as i64);
            }
            let Some(bytes) = bytes else { break };
            match (&self.data_type, self.output) {
                (DataType::Map(key, value), _) => {
                    let map = Map::new(bytes);
                    copy(&mut writer, first, map.keys.row, map.keys.slot(index), key.physical());
                    let slot = map.values.slot(index);
                    copy(&mut writer, first + 1, map.values.row, slot, value.physical());
                }
                (DataType::Array(element), GeneratorOutput::Fields) => {
                    let array = Array::new(bytes);
                    if let (DataType::Struct(fields), false) =
                        (&**element, array.row.is_null(array.slot(index)))
                    {
                        let of = Row(array.row.bytes(array.slot(index)));
                        for (i, field) in fields.iter().enumerate() {
                            let slot = Slot::new(i, fields.len());
                            copy(&mut writer, first + i, of, slot, field.data_type.physical());
                        }
                    }
                }
                (DataType::Array(element), _) => {
                    let array = Array::new(bytes);
                    copy(&mut writer, first, array.row, array.slot(index), element.physical());
                }
                _ => {}
            }
            down.push(Row(out), ingest_ns)?;
        }
        Ok(())
    }
}

/// Sends rows to the instance that owns their key (the first `keys` columns), or all rows to a
/// single instance.
pub(super) struct RowOutbox {
    outbox: Outbox<RowBuf>,
    key: Option<KeyHasher>,
}

/// Hashes the first columns of a row as if they were a row of their own, so that equal keys have
/// equal hashes.
pub(super) struct KeyHasher {
    slots: Vec<(Slot, Physical)>,
    key: Vec<u8>,
}

impl KeyHasher {
    pub fn new(types: &[&DataType], keys: usize) -> Self {
        let slots = (0..keys).map(|i| (Slot::new(i, types.len()), types[i].physical()));
        Self { slots: slots.collect(), key: Vec::new() }
    }

    fn hash(&mut self, row: Row<'_>) -> u64 {
        self.key.clear();
        let mut writer = RowWriter::new(&mut self.key, self.slots.len());
        for (to, (slot, kind)) in self.slots.iter().enumerate() {
            match kind {
                Physical::Double if !row.is_null(*slot) => {
                    writer.double(to, canonical_double(row.double(*slot)));
                }
                _ => copy(&mut writer, to, row, *slot, *kind),
            }
        }
        hash_bytes(&self.key)
    }
}

impl RowOutbox {
    pub fn new(outbox: Outbox<RowBuf>, key: Option<KeyHasher>) -> Self {
        Self { outbox, key }
    }

    /// Sends a row to the instance that owns a key with this hash.
    #[inline]
    pub fn send(&mut self, hash: u64, row: Row<'_>, ingest_ns: u64) {
        let lane = instance_of(hash, self.outbox.lanes());
        let value = RowBuf::from_slice(row.0);
        self.outbox.send(lane, Event::Record(Record { value, ingest_ns }));
    }
}

impl Stage for RowOutbox {
    fn is_ready(&mut self) -> bool {
        self.outbox.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.outbox.broadcast(|| Event::Watermark(micros));
        Ok(())
    }
    fn marker(&mut self, epoch: u64) -> Result<(), EngineError> {
        self.outbox.broadcast(|| Event::Marker(epoch));
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.outbox.broadcast(|| Event::End);
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        Ok(self.outbox.flush())
    }
}

impl<'a> Push<Row<'a>> for RowOutbox {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        // Without a key the hash is 0, which belongs to the first instance.
        let hash = self.key.as_mut().map_or(0, |key| key.hash(row));
        self.send(hash, row, ingest_ns);
        Ok(())
    }
}

/// The receiving end of a ring: passes owned rows to a chain as borrowed ones.
pub(super) struct BorrowedRows(pub BoxChain);

impl Stage for BorrowedRows {
    fn attach(
        &mut self,
        io: &mut millstream_engine::runtime::stage::Io<'_>,
    ) -> Result<(), EngineError> {
        self.0.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.0.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.0.watermark(micros)
    }
    fn marker(&mut self, epoch: u64) -> Result<(), EngineError> {
        self.0.marker(epoch)
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.0.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        self.0.flush()
    }
}

impl Push<RowBuf> for BorrowedRows {
    #[inline]
    fn push(&mut self, row: RowBuf, ingest_ns: u64) -> Result<(), EngineError> {
        self.0.push(Row(&row), ingest_ns)
    }
}
