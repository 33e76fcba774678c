//! The SQL dialect for the parser: its built-in Spark dialect with extensions.

use sqlparser::ast::{Expr, Function, FunctionArguments, Ident, ObjectName, TrimWhereField};
use sqlparser::dialect::{Dialect, Precedence, SparkSqlDialect};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, Word};
use std::any::TypeId;

/// The SQL dialect of Spark, for the crate `sqlparser`.
#[derive(Debug)]
pub struct Spark;

/// The precedence of the shift operators: below `+` and above `&`.
const SHIFT: u8 = 26;
/// The precedence of BETWEEN, IN, LIKE and IS: below comparisons, which may be their operands.
const PREDICATE: u8 = 18;
/// Spark's unsigned right shift, for which the parser has no token.
pub const UNSIGNED_SHIFT: &str = ">>>";

const BASE: SparkSqlDialect = SparkSqlDialect {};

macro_rules! like_base {
    ($($method:ident)*) => {
        $(fn $method(&self) -> bool {
            BASE.$method()
        })*
    };
}

impl Dialect for Spark {
    fn dialect(&self) -> TypeId {
        TypeId::of::<SparkSqlDialect>()
    }
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        BASE.is_delimited_identifier_start(ch)
    }
    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        BASE.identifier_quote_style(identifier)
    }
    fn is_identifier_start(&self, ch: char) -> bool {
        BASE.is_identifier_start(ch)
    }
    fn is_identifier_part(&self, ch: char) -> bool {
        BASE.is_identifier_part(ch)
    }
    fn supports_string_literal_column_alias(&self, explicit: bool) -> bool {
        BASE.supports_string_literal_column_alias(explicit)
    }
    fn supports_string_literal_table_alias(&self, explicit: bool) -> bool {
        BASE.supports_string_literal_table_alias(explicit)
    }
    fn parse_infix(
        &self,
        parser: &mut Parser,
        expr: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        BASE.parse_infix(parser, expr, precedence)
    }
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let [name, open] = parser.peek_tokens_ref();
        let is_trim = matches!(&name.token, Token::Word(word) if word.keyword == Keyword::TRIM);
        if is_trim && open.token == Token::LParen {
            return Some(trim(parser));
        }
        plain_prefix(parser)
    }
    like_base! {
        supports_comparison_in_between_low_bound
        supports_filter_during_aggregation
        supports_group_by_expr
        supports_group_by_with_modifier
        supports_lambda_functions
        supports_select_wildcard_except
        supports_struct_literal
        supports_nested_comments
        supports_values_as_table_factor
        require_interval_qualifier
        supports_bang_not_operator
        supports_select_item_multi_column_alias
        supports_cte_without_as
        supports_long_type_as_bigint
        supports_map_literal_with_angle_brackets
    }

    // The operator precedences in which the base dialect differs from Spark.
    fn prec_value(&self, precedence: Precedence) -> u8 {
        match precedence {
            Precedence::Between | Precedence::Like | Precedence::Is => PREDICATE,
            other => BASE.prec_value(other),
        }
    }
    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        match &parser.peek_token_ref().token {
            Token::ShiftLeft | Token::ShiftRight => Some(Ok(SHIFT)),
            Token::CustomBinaryOperator(name) if name == UNSIGNED_SHIFT => Some(Ok(SHIFT)),
            Token::StringConcat => Some(Ok(self.prec_value(Precedence::PlusMinus))),
            _ => None,
        }
    }

    // The syntax that Spark supports and the base dialect does not.
    fn supports_from_first_select(&self) -> bool {
        true
    }
    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }
    fn supports_string_literal_backslash_escape(&self) -> bool {
        true
    }
    fn supports_string_literal_concatenation(&self) -> bool {
        true
    }
    fn supports_interval_options(&self) -> bool {
        true
    }
    fn supports_window_clause_named_window_reference(&self) -> bool {
        true
    }
    fn allow_extract_custom(&self) -> bool {
        true
    }
    fn allow_extract_single_quotes(&self) -> bool {
        true
    }
}

/// Whether a word at the start of an expression can be parsed as a name: it is not a keyword of the
/// parser, or one that is often used as a name.
fn is_name(word: &Word) -> bool {
    use Keyword as K;
    let known = [
        K::NoKeyword,
        K::ABS,
        K::AVG,
        K::COALESCE,
        K::COUNT,
        K::FIRST,
        K::ID,
        K::KEY,
        K::LAST,
        K::LOWER,
        K::MAX,
        K::MIN,
        K::NAME,
        K::SUM,
        K::TYPE,
        K::UPPER,
        K::VALUE,
    ];
    known.contains(&word.keyword)
}

/// Whether a name is a complete expression if this token follows it.
fn ends_name(token: &Token) -> bool {
    use Keyword as K;
    let words = [
        K::AND,
        K::AS,
        K::ASC,
        K::BETWEEN,
        K::DESC,
        K::ELSE,
        K::END,
        K::FROM,
        K::IN,
        K::IS,
        K::NOT,
        K::OR,
        K::THEN,
        K::WHEN,
    ];
    match token {
        Token::Word(word) => word.quote_style.is_none() && words.contains(&word.keyword),
        other => matches!(
            other,
            Token::Comma
                | Token::RParen
                | Token::Eq
                | Token::Neq
                | Token::Lt
                | Token::LtEq
                | Token::Gt
                | Token::GtEq
                | Token::Plus
                | Token::Minus
                | Token::Mul
                | Token::Div
                | Token::Mod
                | Token::StringConcat
                | Token::SemiColon
                | Token::EOF
        ),
    }
}

/// Parses the most common expressions directly: numbers, strings, columns and calls. The general
/// parser would first try to read each of them as a typed literal such as `DATE '2024-01-31'`, and
/// would format the error of this attempt. `None` leaves the expression to the general parser.
fn plain_prefix(parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
    let [first, second, third] = parser.peek_tokens_ref();
    match &first.token {
        Token::Number(..) | Token::SingleQuotedString(_) | Token::DoubleQuotedString(_) => {
            Some(parser.parse_value().map(Expr::Value))
        }
        Token::Word(word) if is_name(word) => {
            let name = word.to_ident(first.span);
            // The general parser handles `f()`, which may be a type, and `c(+)`, the outer join
            // syntax of another system.
            let calls = second.token == Token::LParen
                && !matches!(third.token, Token::RParen | Token::Plus);
            if calls {
                parser.advance_token();
                return Some(call(parser, name));
            }
            if !ends_name(&second.token) || third.token == Token::Arrow {
                return None;
            }
            parser.advance_token();
            Some(Ok(Expr::Identifier(name)))
        }
        _ => None,
    }
}

/// Parses a function call. The argument list is shrunk, because the parser allocates it with a
/// capacity of four arguments of almost a kilobyte each.
fn call(parser: &mut Parser, name: Ident) -> Result<Expr, ParserError> {
    let mut call = parser.parse_function(ObjectName::from(vec![name]))?;
    if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut call {
        list.args.shrink_to_fit();
    }
    Ok(call)
}

/// Parses `TRIM(text)`, `TRIM(characters, text)`, `TRIM(characters FROM text)` and `TRIM(side
/// [characters] FROM text)`, where the side is BOTH, LEADING or TRAILING. The base dialect does not
/// support the form with a comma, nor a side without characters.
fn trim(parser: &mut Parser) -> Result<Expr, ParserError> {
    parser.next_token();
    parser.expect_token(&Token::LParen)?;
    let side =
        match parser.parse_one_of_keywords(&[Keyword::BOTH, Keyword::LEADING, Keyword::TRAILING]) {
            Some(Keyword::LEADING) => Some(TrimWhereField::Leading),
            Some(Keyword::TRAILING) => Some(TrimWhereField::Trailing),
            Some(_) => Some(TrimWhereField::Both),
            None => None,
        };
    let mut what = None;
    let text = if side.is_some() && parser.parse_keyword(Keyword::FROM) {
        parser.parse_expr()?
    } else {
        let first = parser.parse_expr()?;
        let more = match side {
            Some(_) => parser.expect_keyword_is(Keyword::FROM).map(|()| true)?,
            None => parser.parse_keyword(Keyword::FROM) || parser.consume_token(&Token::Comma),
        };
        if more {
            what = Some(Box::new(first));
            parser.parse_expr()?
        } else {
            first
        }
    };
    parser.expect_token(&Token::RParen)?;
    Ok(Expr::Trim {
        expr: Box::new(text),
        trim_where: side,
        trim_what: what,
        trim_characters: None,
    })
}
