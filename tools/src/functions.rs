//! `millstream functions`: lists or describes the SQL functions.

use crate::failure::Failure;
use crate::stdout::say;
use clap::Args as ClapArgs;
use millstream::table::function_docs::{self, FunctionDoc, FunctionKind};
use millstream::table::functions_not_here::{self, NOT_HERE};

/// The page that lists all functions.
const PAGE: &str = "docs/src/functions.md";

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream functions\n  \
    millstream functions date_trunc")]
pub(crate) struct Args {
    /// Describe this function: signature, example, since when
    name: Option<String>,
    /// Print the page of the documentation that lists all functions
    #[arg(long, conflicts_with = "name")]
    markdown: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.name {
        Some(name) => describe(name).map_err(Failure::Wrong),
        None if args.markdown => {
            say!("{}", page().trim_end());
            Ok(())
        }
        None => {
            list();
            Ok(())
        }
    }
}

/// Prints every function with one line of help.
fn list() {
    let mut docs = function_docs::all();
    // `some` is both an aggregate and an alias, but is listed once.
    docs.dedup_by(|next, doc| next.name == doc.name);
    for doc in docs {
        say!("{:<24}{}", doc.name, doc.help);
    }
}

/// Prints the description of a function. Fails for an unknown name, with the nearest ones.
pub(crate) fn describe(name: &str) -> Result<(), String> {
    let docs = function_docs::named(name);
    if docs.is_empty() {
        if let Some(error) = functions_not_here::error(&name.to_ascii_lowercase()) {
            return Err(error.to_string());
        }
        let near = function_docs::near(name);
        let near = match near.as_slice() {
            [] => "`millstream functions` lists all".to_string(),
            near => format!("Did you mean {}?", near.join(" or ")),
        };
        return Err(format!("UNRESOLVED_ROUTINE: there is no function `{name}`\n  fix: {near}"));
    }
    for (at, doc) in docs.iter().enumerate() {
        if at > 0 {
            say!("");
        }
        say!("{}", doc.signature());
        say!("  {} ({})", doc.description(), kind(doc.kind));
        say!("\n  SELECT {};", doc.usage.example);
        doc.usage.result.lines().for_each(|row| say!("  {row}"));
        say!("\n  since Spark {}; reference: {PAGE}#{}", doc.usage.since, anchor(doc));
    }
    Ok(())
}

fn kind(kind: FunctionKind) -> &'static str {
    match kind {
        FunctionKind::Scalar => "scalar function",
        FunctionKind::Aggregate => "aggregate function",
        FunctionKind::Generator => "generator",
        FunctionKind::Window => "window function",
    }
}

/// The name of a function's place on the page. All operators have one.
fn anchor(doc: &FunctionDoc) -> String {
    let name = if doc.is_operator() { "operators" } else { doc.name.as_str() };
    match doc.kind {
        FunctionKind::Aggregate => format!("aggregate-{name}"),
        _ => name.to_string(),
    }
}

/// Code in a cell of a Markdown table.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

/// Appends a table of functions, with a place for each, or of operators.
fn table<'d>(page: &mut String, docs: impl Iterator<Item = &'d FunctionDoc>, what: &str) {
    page.push_str(&format!("| {what} | | example | result | since |\n|---|---|---|---|---|\n"));
    for doc in docs {
        let place = match doc.is_operator() {
            true => String::new(),
            false => format!("<a id=\"{}\"></a>", anchor(doc)),
        };
        let result: Vec<_> = doc.usage.result.lines().map(code).collect();
        page.push_str(&format!(
            "| {place}{} | {} | {} | {} | {} |\n",
            code(doc.signature()),
            doc.description().replace('|', "\\|"),
            code(doc.usage.example),
            result.join("<br>"),
            doc.usage.since,
        ));
    }
}

/// The page of the documentation that lists all functions.
fn page() -> String {
    let docs = function_docs::all();
    let mut page = "# Functions\n\n\
        For users who write queries: every function and operator, with an example and the version of\n\
        Spark that introduced it. An example follows `SELECT`. This page is written by `millstream\n\
        functions --markdown`, and `cargo test -p millstream-cli --test function_docs` runs its examples.\n"
        .to_string();
    page.push_str("\n<a id=\"operators\"></a>\n\n## Operators\n\n");
    table(&mut page, docs.iter().filter(|doc| doc.is_operator()), "operator");
    for (kind, title) in [
        (FunctionKind::Scalar, "Scalar functions"),
        (FunctionKind::Aggregate, "Aggregate functions"),
        (FunctionKind::Window, "Window functions"),
        (FunctionKind::Generator, "Generators"),
    ] {
        page.push_str(&format!("\n## {title}\n\n"));
        let of_kind = docs.iter().filter(|doc| doc.kind == kind && !doc.is_operator());
        table(&mut page, of_kind, "function");
    }
    page.push_str(
        "\n## Functions of Spark that are not here\n\n\
         All other functions of Spark 4.3 are above, or are syntax or functions in FROM that [the\n\
         reference](reference.md#language) describes: `between`, `case`, `cast`, `when`, `range`,\n\
         `collations` and `sql_keywords`.\n\n| functions | why |\n|---|---|\n",
    );
    for entry in NOT_HERE {
        let names: Vec<_> = entry.names.iter().copied().map(code).collect();
        let end = if entry.instead.is_empty() { "" } else { ". " };
        let why = format!("{}{end}{}", entry.reason, entry.instead);
        page.push_str(&format!("| {} | {why} |\n", names.join(", ")));
    }
    page
}
