//! From text to a statement: bounds on its size, placeholders, and what the parser has but the planner has not.

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    self, AssignmentTarget, ConflictTarget, Expr, OnConflictAction, OnInsert, SqliteOnConflict,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::error::SqlError;

/// Operators, joins and set operations of a statement: each may make its tree a level deeper.
const OPERATORS_MAX: usize = 200;
/// How deep parentheses, subqueries and the like may nest.
const NESTING_MAX: usize = 32;
/// Tables that a statement may name, each time that it names one.
const RELATIONS_MAX: usize = 200;
/// Placeholders of a statement.
const PARAMETERS_MAX: usize = 4096;

/// A statement as parsed.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) statement: Statement,
    /// Number of the last placeholder.
    pub(crate) parameters: usize,
    pub(crate) conflict: Option<Conflict>,
}

/// `ON CONFLICT` of an INSERT.
#[derive(Debug, Clone)]
pub(crate) struct Conflict {
    /// Columns that it names; none: whichever the key has.
    pub(crate) columns: Vec<String>,
    /// Columns that `DO UPDATE` sets; they take the values of the row that came in.
    pub(crate) assigned: Vec<String>,
    /// `DO NOTHING`: rows that are there stay as they are; otherwise they are replaced.
    pub(crate) keep: bool,
}

/// Parses the one statement that `sql` holds.
pub(crate) fn parse(sql: &str, bytes_max: usize) -> Result<Parsed, SqlError> {
    if sql.len() > bytes_max {
        let problem = format!("the statement has {} bytes, at most {bytes_max} are allowed", sql.len());
        return Err(SqlError::Limit { problem });
    }
    let mut tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()
        .map_err(|e| SqlError::Syntax { problem: e.to_string() })?;
    check_size(&tokens)?;
    let parameters = number_placeholders(&mut tokens)?;
    let dialect = GenericDialect {};
    let mut parser = DFParserBuilder::new(tokens).with_dialect(&dialect).with_recursion_limit(NESTING_MAX).build()?;
    let mut statements = parser.parse_statements()?;
    let statement = match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => statement,
        (None, _) => return Err(SqlError::Syntax { problem: "there is no statement".to_owned() }),
        _ => return Err(SqlError::Unsupported { problem: "more than one statement; send one at a time".to_owned() }),
    };
    check_kind(&statement)?;
    let (statement, conflict) = rewrite(statement)?;
    check_relations(&statement)?;
    Ok(Parsed { statement, parameters, conflict })
}

/// Refuses what reaches files before the planner looks at it.
fn check_kind(statement: &Statement) -> Result<(), SqlError> {
    let refused = match statement {
        Statement::CopyTo(_) => "COPY",
        Statement::CreateExternalTable(_) => "CREATE EXTERNAL TABLE",
        Statement::Reset(_) => "RESET",
        Statement::Explain(explain) => return check_kind(&explain.statement),
        Statement::Statement(_) => return Ok(()),
    };
    Err(SqlError::Unsupported { problem: format!("{refused} is not supported") })
}

/// Bounds how deep the tree of a statement can become, before there is one: dropping a tree takes stack for each level.
fn check_size(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut operators = 0usize;
    let mut before: Option<&Token> = None;
    for token in tokens.iter().map(|t| &t.token).filter(|t| !matches!(t, Token::Whitespace(_))) {
        // The sign of a number in a list.
        let sign = *token == Token::Minus && matches!(before, Some(Token::Comma | Token::LParen));
        operators += usize::from(deepens(token) && !sign);
        before = Some(token);
    }
    if operators > OPERATORS_MAX {
        let problem = format!(
            "the statement has {operators} operators, joins and set operations, at most {OPERATORS_MAX} are allowed; \
             use IN (..) in place of many comparisons"
        );
        return Err(SqlError::Limit { problem });
    }
    let (mut depth, mut deepest) = (0usize, 0);
    for t in tokens {
        match t.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > NESTING_MAX {
        let problem = format!("the statement nests {deepest} levels deep, at most {NESTING_MAX} are allowed");
        return Err(SqlError::Limit { problem });
    }
    Ok(())
}

fn deepens(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::XOR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::SIMILAR
                | Keyword::BETWEEN
                | Keyword::IN
                | Keyword::DIV
                | Keyword::MOD
                | Keyword::CASE
                | Keyword::WHEN
                | Keyword::COLLATE
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::MINUS
                | Keyword::JOIN
                | Keyword::WITH
                | Keyword::AT
                | Keyword::EXPLAIN
        ),
        Token::Comma
        | Token::LParen
        | Token::RParen
        | Token::Period
        | Token::SemiColon
        | Token::EOF
        | Token::Whitespace(_)
        | Token::Number(..)
        | Token::Placeholder(_) => false,
        Token::LBracket => true,
        other => is_operator(other),
    }
}

/// Everything that is neither a name, a literal nor punctuation.
fn is_operator(token: &Token) -> bool {
    !matches!(
        token,
        Token::Char(_)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::RBracket
            | Token::LBrace
            | Token::RBrace
    )
}

/// Gives `?` numbers in the order of the text; returns the last number in use.
fn number_placeholders(tokens: &mut [TokenWithSpan]) -> Result<usize, SqlError> {
    let (mut plain, mut numbered) = (0usize, 0usize);
    for token in tokens {
        let Token::Placeholder(name) = &mut token.token else { continue };
        match name.strip_prefix('?') {
            Some("") => {
                plain += 1;
                *name = format!("${plain}");
            }
            rest => {
                let digits = rest.or_else(|| name.strip_prefix('$')).unwrap_or_default();
                let number = digits.parse::<usize>().ok().filter(|&n| n > 0);
                let number = number.ok_or_else(|| SqlError::Syntax {
                    problem: format!("{name:?} is no placeholder; write ? or $1, $2 and so on"),
                })?;
                *name = format!("${number}");
                numbered = numbered.max(number);
            }
        }
    }
    if plain > 0 && numbered > 0 {
        return Err(SqlError::Syntax { problem: "the statement has both ? and $1; use one of them".to_owned() });
    }
    let last = plain.max(numbered);
    if last > PARAMETERS_MAX {
        let problem = format!("the statement has {last} placeholders, at most {PARAMETERS_MAX} are allowed");
        return Err(SqlError::Limit { problem });
    }
    Ok(last)
}

/// `ON CONFLICT (key) DO UPDATE SET a = excluded.a, ..` is `INSERT OR REPLACE`, which the planner has; `DO NOTHING` is a
/// plain INSERT to it.
fn rewrite(statement: Statement) -> Result<(Statement, Option<Conflict>), SqlError> {
    let Statement::Statement(mut inner) = statement else { return Ok((statement, None)) };
    let mut conflict = None;
    if let ast::Statement::Insert(insert) = inner.as_mut()
        && let Some(OnInsert::OnConflict(on)) = &insert.on
    {
        let unsupported = |problem: &str| Err(SqlError::Unsupported { problem: problem.to_owned() });
        let columns = match &on.conflict_target {
            None => Vec::new(),
            Some(ConflictTarget::Columns(columns)) => columns.iter().map(name_of).collect(),
            Some(ConflictTarget::OnConstraint(_)) => return unsupported("ON CONFLICT ON CONSTRAINT; name the columns"),
        };
        let OnConflictAction::DoUpdate(update) = &on.action else {
            insert.on = None;
            return Ok((Statement::Statement(inner), Some(Conflict { columns, assigned: Vec::new(), keep: true })));
        };
        if update.selection.is_some() {
            return unsupported("ON CONFLICT DO UPDATE .. WHERE");
        }
        let mut assigned = Vec::new();
        for assignment in &update.assignments {
            let AssignmentTarget::ColumnName(target) = &assignment.target else {
                return unsupported("ON CONFLICT DO UPDATE with several columns on the left");
            };
            let target = target.0.last().and_then(|part| part.as_ident()).map(name_of).unwrap_or_default();
            let Expr::CompoundIdentifier(parts) = &assignment.value else {
                return unsupported("ON CONFLICT DO UPDATE other than SET column = excluded.column");
            };
            let parts: Vec<String> = parts.iter().map(name_of).collect();
            if parts != ["excluded".to_owned(), target.clone()] {
                return unsupported("ON CONFLICT DO UPDATE other than SET column = excluded.column");
            }
            assigned.push(target);
        }
        insert.on = None;
        insert.or = Some(SqliteOnConflict::Replace);
        conflict = Some(Conflict { columns, assigned, keep: false });
    }
    Ok((Statement::Statement(inner), conflict))
}

fn name_of(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn check_relations(statement: &Statement) -> Result<(), SqlError> {
    let mut relations = 0usize;
    if let Statement::Statement(inner) = statement {
        let _ = ast::visit_relations(inner.as_ref(), |_| {
            relations += 1;
            std::ops::ControlFlow::<()>::Continue(())
        });
    }
    if relations > RELATIONS_MAX {
        let problem = format!("the statement names {relations} tables, at most {RELATIONS_MAX} are allowed");
        return Err(SqlError::Limit { problem });
    }
    Ok(())
}
