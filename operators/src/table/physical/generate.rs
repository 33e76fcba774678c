//! The stage of generators such as `explode`: a row for each element of an array or map.

use crate::table::expr::Node;
use crate::table::expr::compile::{BytesFn, Semantics, compile, fold, text_in};
use crate::table::expr::functions::Splitter;
use crate::table::physical::stages::{BoxChain, CopiedColumn, Scratch, copy};
use crate::table::plan::generator::{Generator, GeneratorOutput};
use crate::table::row::{Array, Map, Row, RowWriter, Slot};
use crate::table::types::DataType;
use millstream_engine::error::EngineError;
use millstream_engine::pass_control;
use millstream_engine::runtime::stage::{Push, Stage};
use millstream_engine::runtime::worker::check_running;

/// Emits a row for each element of a generator's array or map, with the columns of the input and
/// those of the generator. With `outer`, a row without elements is emitted too.
///
/// Input columns that no later stage reads are not copied and stay NULL.
pub(super) struct Generate {
    array: BytesFn,
    /// For `explode(split(text, 'x'))`: the text and its separator. The parts are emitted without
    /// building an array.
    split: Option<(BytesFn, Splitter)>,
    data_type: DataType,
    output: GeneratorOutput,
    with_position: bool,
    outer: bool,
    copied: Vec<CopiedColumn>,
    /// The number of input columns, and that of output columns.
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
        let copied = copied
            .map(|i| CopiedColumn {
                from: Slot::new(i, width),
                to: i,
                physical: input[i].physical(),
            })
            .collect();
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

/// The number of rows after which a long array looks whether the job has ended.
const ROWS_PER_CHECK: usize = 1 << 10;

/// Starts an output row with the copied columns of the input.
#[inline]
fn begin<'o>(
    out: &'o mut Vec<u8>,
    out_width: usize,
    copied: &[CopiedColumn],
    row: Row<'_>,
) -> RowWriter<'o, Vec<u8>> {
    out.clear();
    let mut writer = RowWriter::new(out, out_width);
    for CopiedColumn { from, to, physical } in copied {
        copy(&mut writer, *to, row, *from, *physical);
    }
    writer
}

impl Stage for Generate {
    pass_control!(down);
}

impl Generate {
    /// Emits a row for each part of a text, if `split` is set; otherwise returns false. The copied
    /// columns are written only once.
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
        splitter.parts(text_in(bytes, cx.arena), -1, cx.arena, |part| {
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
            if index % ROWS_PER_CHECK == ROWS_PER_CHECK - 1 {
                check_running()?;
            }
        }
        Ok(())
    }
}
