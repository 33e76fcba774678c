//! The functions `xpath…`: values that an XPath 1.0 expression selects from an XML text.
//!
//! As in Spark, names have no namespaces: `a/b` also selects `b` of a default namespace. A text is
//! parsed for each call; a thread keeps the compiled paths, at most [`PATHS_MAX`]. Nesting is
//! limited, because the parser of paths and the evaluation are recursive, and the parser of XML
//! searches all open elements for the namespace of each new one.

use super::registry::{Call, Function, Typed, cells, made, text_or_null};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{EvalError, failed};
use crate::table::row::RowWriter;
use crate::table::types::DataType;
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use sxd_document::dom::{ChildOfElement, Element};
use sxd_document::{Package, parser};
use sxd_xpath::nodeset::Node;
use sxd_xpath::{Context, Factory, Value, XPath};

use DataType as T;

/// The deepest nesting of elements, and of brackets in a path.
const DEPTH_MAX: usize = 128;
/// The start of a document type declaration.
const DOCTYPE: &str = "<!DOCTYPE";
/// How many compiled paths a thread keeps. With one more it starts again.
const PATHS_MAX: usize = 1024;
/// The bytes of a path that is kept; a longer one is compiled for each call.
const KEPT_PATH_BYTES: usize = 4096;

/// Declares a function of an XML text and a path that gives one value.
const fn of_path(
    name: &'static str,
    help: &'static str,
    resolve: fn(&str, Vec<Resolved>) -> PlanResult<Typed>,
    eval: super::registry::EvalCells,
) -> Function {
    cells(name, help, (2, 2), resolve, eval)
}

/// Declares a function whose value is a number of a type.
macro_rules! number {
    ($name:literal, $what:literal, $to:expr, $result:literal) => {
        of_path(
            $name,
            concat!($name, "(xml, path): ", $what),
            |n, a| resolve(n, a, $to),
            |a, call, arena| {
                evaluated(a, call, arena, |value, call, _| Ok(as_number(value.number(), &call.to)))
            },
        )
        .usage("2.0.0", concat!($name, "('<a><b>1</b><b>2</b></a>', 'sum(a/b)')"), $result)
    };
}

pub(super) static FUNCTIONS: &[Function] = &[
    of_path(
        "xpath",
        "xpath(xml, path): the texts and attributes that the path selects; NULL for an element",
        |n, a| resolve(n, a, T::Array(Box::new(T::String))),
        |a, call, arena| evaluated(a, call, arena, nodes),
    )
    .usage("2.0.0", "xpath('<a><b>1</b><b>2</b></a>', 'a/b/text()')", "[1, 2]"),
    of_path(
        "xpath_boolean",
        "xpath_boolean(xml, path): whether the path is true, or selects a node",
        |n, a| resolve(n, a, T::Boolean),
        |a, call, arena| evaluated(a, call, arena, |value, _, _| Ok(Cell::Bool(value.boolean()))),
    )
    .usage("2.0.0", "xpath_boolean('<a><b>1</b></a>', 'a/b')", "true"),
    number!("xpath_double", "the number, or NaN", T::Double, "3.0"),
    number!("xpath_number", "the number, or NaN", T::Double, "3.0"),
    number!("xpath_float", "the number as a FLOAT, or NaN", T::Float, "3.0"),
    number!("xpath_long", "the number without its fraction, or 0", T::Long, "3"),
    number!("xpath_int", "the number without its fraction, or 0", T::Int, "3"),
    number!("xpath_short", "the number without its fraction, or 0", T::Short, "3"),
    of_path(
        "xpath_string",
        "xpath_string(xml, path): the text of the first node that the path selects",
        |n, a| resolve(n, a, T::String),
        |a, call, arena| {
            evaluated(a, call, arena, |value, _, arena| Ok(made(arena, &value.string())))
        },
    )
    .usage("2.0.0", "xpath_string('<a><b>x</b></a>', 'a/b')", "x"),
];

/// Resolves a function of an XML text and a constant path. Only an untyped NULL is cast.
fn resolve(name: &str, args: Vec<Resolved>, to: DataType) -> PlanResult<Typed> {
    let args = args.into_iter().map(|arg| text_or_null(name, arg));
    let args = args.collect::<PlanResult<Vec<_>>>()?;
    if !args[1].is_foldable() {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
            format!("`{name}` needs a constant path, but has `{}`", args[1]),
            "",
        ));
    }
    Ok(Typed::new(args, to, true))
}

fn wrong<T>(kind: &str, reason: String) -> Result<T, Box<EvalError>> {
    let fix = "Paths are those of XPath 1.0, and texts must be well-formed XML";
    match kind {
        "xml" => failed("INVALID_PARAMETER_VALUE.XML", reason, fix),
        _ => failed("INVALID_PARAMETER_VALUE.XPATH", reason, fix),
    }
}

/// Evaluates the path and converts its value. The result is NULL if the text or the path is empty.
fn evaluated<'a>(
    a: &[Cell<'a>],
    call: &Call,
    arena: &'a Bump,
    convert: fn(Value<'_>, &Call, &'a Bump) -> Result<Cell<'a>, Box<EvalError>>,
) -> Result<Cell<'a>, Box<EvalError>> {
    let (xml, path) = (a[0].text(), a[1].text());
    if xml.is_empty() || path.is_empty() {
        return Ok(Cell::Null);
    }
    let package = parsed(xml)?;
    let compiled = match compiled(path) {
        Ok(compiled) => compiled,
        Err(reason) => return wrong("xpath", reason),
    };
    let document = package.as_document();
    match compiled.evaluate(&Context::new(), document.root()) {
        Ok(value) => convert(value, call, arena),
        Err(error) => wrong("xpath", format!("'{path}' cannot be evaluated: {error}")),
    }
}

thread_local! {
    /// Compiled paths. They cannot move to another thread, as a compiled expression may.
    static PATHS: RefCell<HashMap<String, Rc<XPath>>> = RefCell::default();
}

/// Compiles a path, or takes it from the cache of the thread. The error tells why the text is not
/// a path.
fn compiled(path: &str) -> Result<Rc<XPath>, String> {
    PATHS.with_borrow_mut(|paths| {
        if let Some(known) = paths.get(path) {
            return Ok(known.clone());
        }
        let compiled = Rc::new(compile(path)?);
        if path.len() <= KEPT_PATH_BYTES {
            if paths.len() == PATHS_MAX {
                paths.clear();
            }
            paths.insert(path.to_string(), compiled.clone());
        }
        Ok(compiled)
    })
}

fn compile(path: &str) -> Result<XPath, String> {
    let brackets = path.bytes().filter(|byte| matches!(byte, b'(' | b'[')).count();
    let steps = path.bytes().filter(|byte| matches!(byte, b'-' | b'+' | b'*' | b'/')).count();
    if brackets > DEPTH_MAX || steps > 8 * DEPTH_MAX {
        return Err("the path is too complex".to_string());
    }
    // The parser panics at a prefix that is not declared, and no prefix is.
    if has_prefix(path) {
        return Err(format!("'{path}' has a namespace prefix, and names have none here"));
    }
    match Factory::new().build(path) {
        Ok(Some(compiled)) => Ok(compiled),
        Ok(None) => Err(format!("'{path}' is not a path")),
        Err(error) => Err(format!("'{path}' is not a path: {error}")),
    }
}

/// Whether a path has a single colon outside its quoted texts. Two colons end the name of an axis.
fn has_prefix(path: &str) -> bool {
    let (mut quote, mut colons) = (None, 0);
    for c in path.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, ':') => {
                colons += 1;
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (None, _) => {}
        }
        if colons % 2 == 1 {
            return true;
        }
        colons = 0;
    }
    false
}

/// Parses an XML text. Namespaces are removed from its names.
fn parsed(xml: &str) -> Result<Package, Box<EvalError>> {
    if depth(xml) > DEPTH_MAX {
        return wrong("xml", format!("the XML is nested deeper than {DEPTH_MAX} elements"));
    }
    // The parser takes a declaration of the document's type only after something else.
    let parse = match xml.starts_with(DOCTYPE) {
        true => parser::parse(&format!(" {xml}")),
        false => parser::parse(xml),
    };
    let package = match parse {
        Ok(package) => package,
        Err(error) => return wrong("xml", format!("the text is not XML: {error}")),
    };
    let root = package.as_document().root();
    let mut rest: Vec<Element<'_>> =
        root.children().into_iter().filter_map(|child| child.element()).collect();
    while let Some(element) = rest.pop() {
        if element.name().namespace_uri().is_some() {
            let local = element.name().local_part().to_string();
            element.set_name(local.as_str());
        }
        let children = element.children().into_iter();
        rest.extend(children.filter_map(|child| match child {
            ChildOfElement::Element(element) => Some(element),
            _ => None,
        }));
    }
    Ok(package)
}

/// The deepest nesting of elements. What only looks like a tag is passed over: text in comments,
/// CDATA sections, processing instructions and quotes. A text that is not well-formed is counted up
/// to its first error at least.
fn depth(xml: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let Some(mut rest) = without_prolog(xml) else { return 0 };
    while let Some(at) = rest.find('<') {
        let tag = &rest[at..];
        let passed = match tag.as_bytes().get(1) {
            Some(b'!' | b'?') => passed_over(tag),
            Some(b'/') => {
                depth = depth.saturating_sub(1);
                after(tag, ">")
            }
            _ => {
                deepest = deepest.max(depth + 1);
                let end = unquoted(tag, |byte| byte == b'>');
                let is_empty = end.is_some_and(|end| tag[..end].ends_with('/'));
                depth += usize::from(!is_empty);
                end.map(|end| &tag[end + 1..])
            }
        };
        match passed {
            Some(passed) => rest = passed,
            None => return deepest,
        }
    }
    deepest
}

/// The text after a comment, a CDATA section or a processing instruction; `None` if the text is not
/// well-formed.
fn passed_over(tag: &str) -> Option<&str> {
    let parts = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")];
    let (start, end) = parts.into_iter().find(|(start, _)| tag.starts_with(start))?;
    after(&tag[start.len()..], end)
}

/// The text from the root element on; `None` if the text before it is not well-formed.
fn without_prolog(xml: &str) -> Option<&str> {
    let mut rest = xml.trim_start();
    while rest.starts_with("<!") || rest.starts_with("<?") {
        rest = match rest.strip_prefix(DOCTYPE) {
            None => passed_over(rest)?,
            Some(declared) => {
                let at = unquoted(declared, |byte| matches!(byte, b'[' | b'>'))?;
                match declared[at..].strip_prefix('[') {
                    Some(subset) => after(after(subset, "]")?, ">")?,
                    None => &declared[at + 1..],
                }
            }
        };
        rest = rest.trim_start();
    }
    Some(rest)
}

/// The text after the first occurrence of an end.
fn after<'x>(text: &'x str, end: &str) -> Option<&'x str> {
    text.find(end).map(|at| &text[at + end.len()..])
}

/// The index of the first byte outside of quotes for which a test is true.
fn unquoted(text: &str, is_wanted: fn(u8) -> bool) -> Option<usize> {
    let mut quote = None;
    text.bytes().position(|byte| {
        match quote {
            Some(open) if open == byte => quote = None,
            None if matches!(byte, b'\'' | b'"') => quote = Some(byte),
            _ => {}
        }
        quote.is_none() && is_wanted(byte)
    })
}

/// The values of the nodes that a path selects, in document order. An element has none.
fn nodes<'a>(value: Value<'_>, _: &Call, arena: &'a Bump) -> Result<Cell<'a>, Box<EvalError>> {
    let Value::Nodeset(found) = value else {
        return wrong("xpath", "the path selects no nodes, but gives a value".to_string());
    };
    let found = found.document_order();
    let mut out = BumpVec::new_in(arena);
    let mut writer = RowWriter::array(&mut out, found.len());
    for (index, node) in found.iter().enumerate() {
        let text = match node {
            Node::Root(_) | Node::Element(_) => continue,
            other => other.string_value(),
        };
        Cell::Bytes(text.as_bytes()).put(&mut writer, index);
    }
    Ok(Cell::Bytes(out.into_bump_slice()))
}

/// A number as a value of a type, converted as Java does: NaN becomes 0, and what is out of range
/// the nearest number; a SMALLINT has the low bits of an INT.
fn as_number<'a>(value: f64, to: &DataType) -> Cell<'a> {
    match to {
        T::Float => Cell::Double(f64::from(value as f32)),
        T::Long => Cell::Long(value as i64),
        T::Int => Cell::Long(i64::from(value as i32)),
        T::Short => Cell::Long(i64::from(value as i32 as i16)),
        _ => Cell::Double(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_told_from_an_axis_and_from_quoted_text() {
        for path in ["a/x:b", "x:*", "a[@x:k]", "a:", "x:f(a)"] {
            assert!(has_prefix(path), "{path}");
        }
        for path in ["a/b", "child::b", "a[.='x:y']", "a[.=\"it's:\"]", "self::node()", ""] {
            assert!(!has_prefix(path), "{path}");
        }
    }

    #[test]
    fn the_nesting_of_elements_is_bounded() {
        assert_eq!(depth("<a><b/><c><d>1</d></c></a>"), 3);
        // Each of these looks like an end tag to a search for one.
        for disguise in ["", "<!-- </a> -->", "<![CDATA[</a>]]>", "<?p </a>?>", "<b x='/>'/>"] {
            let start = format!("<a>{disguise}");
            assert_eq!(depth(&start.repeat(3)), if disguise.contains('b') { 4 } else { 3 });
            let deep = start.repeat(DEPTH_MAX + 1);
            assert!(parsed(&deep).is_err_and(|e| e.condition == "INVALID_PARAMETER_VALUE.XML"));
        }
        assert_eq!(depth("<a x='/>'><b/></a>"), 2);
        assert_eq!(depth("<a><!-- <b><c><d> --><b/></a>"), 2);
        // The declaration ends at the bracket, not at the end of the comment.
        let declared = format!("<!DOCTYPE a [<!-- ]>{} -->]>", "<a>".repeat(200));
        assert!(depth(&declared) > DEPTH_MAX);
        assert_eq!(depth("<?xml version='1.0'?> <!-- <a><a> --><!DOCTYPE a SYSTEM '>'><a/>"), 1);
        assert_eq!(depth("<!DOCTYPE a [<!ENTITY e '<a><a>'> ]><a/>"), 1);
        for broken in ["<", "<a", "<a x='", "<a><!-- ", "<a></", "<a><![CDATA[", "</a></a><a>"] {
            assert!(depth(broken) <= 2, "{broken}");
        }
    }

    #[test]
    fn a_path_is_compiled_once() {
        let first = compiled("a/b").unwrap();
        assert!(Rc::ptr_eq(&first, &compiled("a/b").unwrap()));
        assert!(compiled("a[").is_err());
        (0..PATHS_MAX).for_each(|i| drop(compiled(&format!("a/c{i}")).unwrap()));
        assert!(!Rc::ptr_eq(&first, &compiled("a/b").unwrap()));
    }
}
