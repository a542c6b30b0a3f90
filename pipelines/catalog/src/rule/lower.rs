//! From CEL's syntax tree to the typed tree of a rule.

use super::{
    Arithmetic, Comparison, MAX_RULE_BYTES, MAX_RULE_DEPTH, MAX_RULE_FEATURES, Number, RuleMistake,
    Truth,
};
use crate::feature::Vocabulary;
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators};
use cel::parser::Parser;
use std::ops::Range;

/// Whole numbers beyond are not exact as `f64`.
const MAX_WHOLE: u64 = 1 << 53;

const LANGUAGE: &str =
    "rules know numbers, features, has(), + - * /, < <= > >= == !=, && || !, ? : and parentheses";

/// Reads `text` into the features it names (sorted) and its condition.
pub(super) fn lower(
    text: &str,
    vocabulary: &Vocabulary,
) -> Result<(Vec<String>, Truth), Vec<RuleMistake>> {
    let (expression, source) = parse(text)?;
    let mut lowering =
        Lowering { text, source: &source, vocabulary, features: Vec::new(), mistakes: Vec::new() };
    // Places in the tree are places in the sorted list, so the names are gathered first.
    lowering.gather(&expression);
    lowering.features.sort();
    lowering.features.dedup();
    let truth = lowering.truth(&expression);
    if lowering.mistakes.is_empty() && lowering.features.is_empty() {
        lowering.mistake(
            0..text.len(),
            "the rule reads no feature, so it says the same of every window",
            None,
        );
    }
    if lowering.features.len() > MAX_RULE_FEATURES {
        let message = format!("a rule names at most {MAX_RULE_FEATURES} features");
        lowering.mistake(0..text.len(), message, Some("split it into several flags".to_owned()));
    }
    match truth {
        Some(truth) if lowering.mistakes.is_empty() => Ok((lowering.features, truth)),
        _ => Err(lowering.mistakes),
    }
}

/// CEL's parser, behind the limits.
fn parse(text: &str) -> Result<(IdedExpr, SourceInfo), Vec<RuleMistake>> {
    let refuse =
        |range, message: String| Err(vec![RuleMistake { range, message, suggestion: None }]);
    if text.len() > MAX_RULE_BYTES {
        let message = format!("a rule has at most {MAX_RULE_BYTES} bytes, this one {}", text.len());
        return refuse(MAX_RULE_BYTES..text.len(), message);
    }
    // Columns that the parser counts are then bytes, in whichever unit it counts.
    if let Some((at, wrong)) = text.char_indices().find(|(_, c)| !c.is_ascii() || *c == '\0') {
        return refuse(at..at + wrong.len_utf8(), format!("`{wrong}` has no meaning in a rule"));
    }
    if let Some(at) = too_deep(text) {
        let message = format!("the rule nests deeper than {MAX_RULE_DEPTH}");
        return refuse(at..at + 1, message);
    }
    let parser = Parser::new().max_recursion_depth(MAX_RULE_DEPTH).error_recovery_limit(8);
    parser.parse_with_source_info(text).map_err(|errors| {
        let mut errors = errors.errors;
        errors.sort_by_key(|error| error.pos);
        // What the parser says after its first stumble is mostly about the stumble.
        let first = errors.first();
        first.map(|error| stumble(text, offset(text, error.pos), &error.msg)).into_iter().collect()
    })
}

/// The parser's message in a rule writer's words.
fn stumble(text: &str, at: usize, message: &str) -> RuleMistake {
    let rest = &text[at..];
    let word =
        rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let token = &rest[..word.max(1).min(rest.len())];
    let range = at..at + token.len();
    if rest.trim().is_empty() {
        let message = "the rule ends where a number, a feature or a condition must follow".into();
        return RuleMistake { range: text.trim_end().len()..text.len(), message, suggestion: None };
    }
    let suggestion = match token.to_ascii_lowercase().as_str() {
        "=" => Some("compare with `==`"),
        "and" | "&" => Some("write `&&`"),
        "or" | "|" => Some("write `||`"),
        "not" => Some("write `!`"),
        "if" | "then" | "else" => Some("write `condition ? then : otherwise`"),
        _ => None,
    };
    let message = match message.trim_start_matches("Syntax error: ").split_once(" expecting ") {
        None if !message.starts_with("Syntax error: ") => message.to_owned(),
        _ => format!("`{token}` cannot stand here"),
    };
    RuleMistake { range, message, suggestion: suggestion.map(str::to_owned) }
}

/// Where the text nests deeper than the limit, found before a recursive parser sees it.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0u16;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' | b'?' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_RULE_DEPTH {
            return Some(at);
        }
    }
    None
}

/// Byte of a line and column that the parser counts from 1.
fn offset(text: &str, (line, column): (isize, isize)) -> usize {
    let line = usize::try_from(line - 1).unwrap_or(0);
    let column = usize::try_from(column - 1).unwrap_or(0);
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    (start + column).min(text.len())
}

/// Whether a number was written whole; CEL does not mix the two in arithmetic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Decimal,
}

struct Lowering<'r> {
    text: &'r str,
    source: &'r SourceInfo,
    vocabulary: &'r Vocabulary,
    features: Vec<String>,
    mistakes: Vec<RuleMistake>,
}

impl Lowering<'_> {
    /// A condition; `None` when a mistake was noted.
    fn truth(&mut self, expression: &IdedExpr) -> Option<Truth> {
        match &expression.expr {
            Expr::Literal(LiteralValue::Boolean(constant)) => Some(Truth::Constant(**constant)),
            Expr::Select(select) if select.test => {
                let feature = self.feature(expression, select)?;
                Some(Truth::Has(feature))
            }
            Expr::Call(call) => self.truth_of_call(expression, call),
            Expr::Literal(_) | Expr::Ident(_) | Expr::Select(_) => {
                // A name that is none is the mistake to tell, not what it is used for.
                let known = match &expression.expr {
                    Expr::Select(select) => self.feature(expression, select).is_some(),
                    Expr::Ident(name) => {
                        self.unknown(expression, name);
                        false
                    }
                    _ => true,
                };
                if known {
                    let range = self.range(expression);
                    let written = self.text[range.clone()].to_owned();
                    let suggestion = Some(format!("compare it, such as `{written} > 1.0`"));
                    self.mistake(range, "this is a number, not a condition", suggestion);
                }
                None
            }
            _ => self.unsupported(expression),
        }
    }

    fn truth_of_call(&mut self, expression: &IdedExpr, call: &CallExpr) -> Option<Truth> {
        let comparison = match call.func_name.as_str() {
            operators::LESS => Comparison::Less,
            operators::LESS_EQUALS => Comparison::LessOrEqual,
            operators::GREATER => Comparison::Greater,
            operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
            operators::EQUALS => Comparison::Equal,
            operators::NOT_EQUALS => Comparison::NotEqual,
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::NEGATE => {
                self.number(expression)?;
                let range = self.range(expression);
                self.mistake(
                    range,
                    "this is a number, not a condition",
                    Some("compare it with `<`, `<=`, `>` or `>=`".to_owned()),
                );
                return None;
            }
            _ => return self.truth_of_logic(expression, call),
        };
        let [left, right] = call.args.as_slice() else { return self.unsupported(expression) };
        let left = self.number(left);
        let right = self.number(right);
        Some(Truth::Compare(comparison, left?.0, right?.0))
    }

    fn truth_of_logic(&mut self, expression: &IdedExpr, call: &CallExpr) -> Option<Truth> {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_NOT, [inner]) => Some(Truth::Not(Box::new(self.truth(inner)?))),
            (operators::LOGICAL_AND, [left, right]) => {
                let (left, right) = (self.truth(left), self.truth(right));
                Some(Truth::And(Box::new(left?), Box::new(right?)))
            }
            (operators::LOGICAL_OR, [left, right]) => {
                let (left, right) = (self.truth(left), self.truth(right));
                Some(Truth::Or(Box::new(left?), Box::new(right?)))
            }
            (operators::CONDITIONAL, [condition, then, otherwise]) => {
                let condition = self.truth(condition);
                let (then, otherwise) = (self.truth(then), self.truth(otherwise));
                Some(Truth::Choose(Box::new(condition?), Box::new(then?), Box::new(otherwise?)))
            }
            _ => self.unsupported(expression),
        }
    }

    /// A number; `None` when a mistake was noted.
    fn number(&mut self, expression: &IdedExpr) -> Option<(Number, Kind)> {
        match &expression.expr {
            Expr::Literal(LiteralValue::Double(number)) => {
                Some((Number::Constant(**number), Kind::Decimal))
            }
            Expr::Literal(LiteralValue::Int(number)) => {
                if number.unsigned_abs() > MAX_WHOLE {
                    let range = self.range(expression);
                    self.mistake(range, "a whole number beyond 2^53 is not exact", None);
                    return None;
                }
                Some((Number::Constant(**number as f64), Kind::Whole))
            }
            Expr::Select(select) if !select.test => {
                let feature = self.feature(expression, select)?;
                Some((Number::Feature(feature), Kind::Decimal))
            }
            Expr::Ident(name) => {
                self.unknown(expression, name);
                None
            }
            Expr::Call(call) => self.number_of_call(expression, call),
            Expr::Literal(LiteralValue::Boolean(_)) => self.not_a_number(expression),
            Expr::Select(_) => self.not_a_number(expression),
            _ => self.unsupported(expression),
        }
    }

    fn number_of_call(&mut self, expression: &IdedExpr, call: &CallExpr) -> Option<(Number, Kind)> {
        let operation = match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::NEGATE, [inner]) => {
                let (inner, kind) = self.number(inner)?;
                return Some((Number::Negate(Box::new(inner)), kind));
            }
            (operators::ADD, [_, _]) => Arithmetic::Add,
            (operators::SUBSTRACT, [_, _]) => Arithmetic::Subtract,
            (operators::MULTIPLY, [_, _]) => Arithmetic::Multiply,
            (operators::DIVIDE, [_, _]) => Arithmetic::Divide,
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS
                | operators::EQUALS
                | operators::NOT_EQUALS
                | operators::LOGICAL_AND
                | operators::LOGICAL_OR
                | operators::LOGICAL_NOT,
                _,
            ) => return self.not_a_number(expression),
            _ => return self.unsupported(expression),
        };
        let [left, right] = call.args.as_slice() else { return None };
        let left = self.operand(left);
        let right = self.operand(right);
        Some((Number::Binary(operation, Box::new(left?), Box::new(right?)), Kind::Decimal))
    }

    /// A side of an arithmetic operation: features are decimals, and CEL has no `double + int`.
    fn operand(&mut self, expression: &IdedExpr) -> Option<Number> {
        let (number, kind) = self.number(expression)?;
        if kind == Kind::Whole {
            let range = self.range(expression);
            let written = self.text[range.clone()].to_owned();
            self.mistake(
                range,
                "CEL does not calculate with whole numbers and decimals together",
                Some(format!("write `{written}.0`")),
            );
            return None;
        }
        Some(number)
    }

    /// The place of a feature that exists.
    fn feature(&mut self, expression: &IdedExpr, select: &SelectExpr) -> Option<usize> {
        let Some(name) = dotted(select) else {
            return self.unsupported(expression);
        };
        match self.vocabulary.check(&name) {
            // Gathering went over the same tree, so the name is there.
            Ok(()) => self.features.binary_search(&name).ok(),
            Err((message, suggestion)) => {
                let range = self.range(expression);
                self.mistake(range, message, suggestion);
                None
            }
        }
    }

    fn gather(&mut self, expression: &IdedExpr) {
        match &expression.expr {
            Expr::Select(select) => self.features.extend(dotted(select)),
            Expr::Call(call) => {
                for argument in &call.args {
                    self.gather(argument);
                }
            }
            _ => {}
        }
    }

    fn unknown(&mut self, expression: &IdedExpr, name: &str) {
        let range = self.range(expression);
        if let Err((message, suggestion)) = self.vocabulary.check(name) {
            self.mistake(range, message, suggestion);
        }
    }

    fn not_a_number<T>(&mut self, expression: &IdedExpr) -> Option<T> {
        let range = self.range(expression);
        self.mistake(
            range,
            "this is a condition, not a number",
            Some("combine conditions with `&&` and `||`".to_owned()),
        );
        None
    }

    fn unsupported<T>(&mut self, expression: &IdedExpr) -> Option<T> {
        let message = match &expression.expr {
            Expr::Call(call) if call.func_name.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                format!("`{}()` is not available in rules", call.func_name)
            }
            Expr::Literal(LiteralValue::UInt(number)) => {
                let (range, suggestion) = (self.range(expression), format!("write `{}`", **number));
                self.mistake(range, "rules know no unsigned numbers", Some(suggestion));
                return None;
            }
            _ => "this part of CEL is not available in rules".to_owned(),
        };
        let range = self.range(expression);
        self.mistake(range, message, Some(LANGUAGE.to_owned()));
        None
    }

    fn mistake(
        &mut self,
        range: Range<usize>,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        self.mistakes.push(RuleMistake { range, message: message.into(), suggestion });
    }

    /// Bytes of an expression, from its leftmost part. The parser places an operator's node at the
    /// operator.
    fn range(&self, expression: &IdedExpr) -> Range<usize> {
        let mut ids = Vec::new();
        collect_ids(expression, &mut ids);
        let places = ids.iter().filter_map(|id| self.source.offset_for(*id));
        let (start, end) = places.fold((usize::MAX, 0), |(start, end), (from, to)| {
            (start.min(from as usize), end.max(to as usize + 1))
        });
        if start >= end || end > self.text.len() {
            return 0..self.text.len();
        }
        // A field's node is at its dot, a call's at its parenthesis: take the names along.
        let bytes = self.text.as_bytes();
        let name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'.';
        let end = end + bytes[end..].iter().take_while(|byte| name(byte)).count();
        let start = match bytes[start] {
            b'(' => start - bytes[..start].iter().rev().take_while(|byte| name(byte)).count(),
            _ => start,
        };
        start..closed(bytes, start, end)
    }
}

/// `end`, moved on behind the brackets that are open there.
fn closed(bytes: &[u8], start: usize, mut end: usize) -> usize {
    let open = |end: usize| {
        let count = |set: &[u8]| bytes[start..end].iter().filter(|byte| set.contains(byte)).count();
        count(b"([{") > count(b")]}")
    };
    while end < bytes.len() && open(end) {
        end += 1;
    }
    end
}

/// `a.b` of a selection on a plain name, or on such a selection.
fn dotted(select: &SelectExpr) -> Option<String> {
    let operand = match &select.operand.expr {
        Expr::Ident(name) => name.clone(),
        Expr::Select(inner) if !inner.test => dotted(inner)?,
        _ => return None,
    };
    Some(format!("{operand}.{}", select.field))
}

fn collect_ids(expression: &IdedExpr, ids: &mut Vec<u64>) {
    ids.push(expression.id);
    match &expression.expr {
        Expr::Select(select) => collect_ids(&select.operand, ids),
        Expr::Call(call) => {
            for part in call.target.as_deref().into_iter().chain(&call.args) {
                collect_ids(part, ids);
            }
        }
        _ => {}
    }
}
