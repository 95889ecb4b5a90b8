//! The grammar of label selectors in query strings.

use std::collections::BTreeSet;

use super::{Operator, Requirement, SelectorError, key_problem};

/// The requirements of a selector, as written.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    Parser { items: lex(text), at: 0 }.selector()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

fn lex(text: &str) -> Vec<(Token, &str)> {
    let mut items = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let end = match rest.as_bytes() {
            [] => break,
            [b'=' | b'!', b'=', ..] => 2,
            [b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<', ..] => 1,
            _ => rest.find(['=', '!', '(', ')', ',', '>', '<', ' ', '\t', '\r', '\n']).unwrap_or(rest.len()),
        };
        let (word, tail) = rest.split_at(end);
        items.push((token(word), word));
        rest = tail;
    }
    items
}

fn token(word: &str) -> Token {
    match word {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => Token::Identifier,
    }
}

struct Parser<'a> {
    items: Vec<(Token, &'a str)>,
    at: usize,
}

impl<'a> Parser<'a> {
    /// Keys and values may be called `in` and `notin`; only where an operator must stand are these words operators.
    fn peek(&self) -> (Token, &'a str) {
        match self.raw() {
            (Token::In | Token::NotIn, word) => (Token::Identifier, word),
            other => other,
        }
    }

    fn raw(&self) -> (Token, &'a str) {
        self.items.get(self.at).copied().unwrap_or((Token::End, ""))
    }

    fn next(&mut self) -> (Token, &'a str) {
        let item = self.peek();
        self.at += 1;
        item
    }

    fn selector(mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut all = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let one = self.requirement();
                    all.push(one.map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?);
                    match self.next() {
                        (Token::End, _) => return Ok(all),
                        (Token::Comma, _) => {
                            let (after, word) = self.peek();
                            if !matches!(after, Token::Identifier | Token::Not) {
                                return Err(found(word, "expected: identifier after ','"));
                            }
                        }
                        (_, word) => return Err(found(word, "expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(all),
                (_, word) => return Err(found(word, "expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Identifier {
            return Err(found(key, "expected: identifier"));
        }
        if let Some(why) = key_problem(key) {
            return Err(SelectorError(format!("<nil>: Invalid value: {key:?}: {why}")));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, BTreeSet::new());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, BTreeSet::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let (token, word) = self.raw();
        self.at += 1;
        match token {
            Token::In => Ok(Operator::In),
            Token::NotIn => Ok(Operator::NotIn),
            Token::Equals => Ok(Operator::Equals),
            Token::DoubleEquals => Ok(Operator::DoubleEquals),
            Token::NotEquals => Ok(Operator::NotEquals),
            Token::Greater => Ok(Operator::GreaterThan),
            Token::Less => Ok(Operator::LessThan),
            _ => Err(found(word, "expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let (token, word) = self.next();
        if token != Token::Open {
            return Err(SelectorError(format!("found '{word}' expected: '('")));
        }
        match self.peek() {
            (Token::Identifier | Token::Comma, _) => self.value_list(),
            (Token::Close, _) => {
                self.at += 1;
                Ok(BTreeSet::from([String::new()]))
            }
            (_, word) => Err(found(word, "expected: ',', ')' or identifier")),
        }
    }

    /// Up to and with the closing parenthesis; an empty place between commas is an empty value.
    fn value_list(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                (Token::Identifier, word) => {
                    values.insert(word.to_owned());
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => break,
                        (_, word) => return Err(found(word, "expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.insert(String::new());
                            break;
                        }
                        Token::Comma => {
                            self.at += 1;
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                (_, word) => return Err(found(word, "expected: ',', or identifier")),
            }
        }
        self.at += 1;
        Ok(values)
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.peek() {
            (Token::End | Token::Comma, _) => Ok(BTreeSet::from([String::new()])),
            (Token::Identifier, word) => {
                self.at += 1;
                Ok(BTreeSet::from([word.to_owned()]))
            }
            (_, word) => Err(found(word, "expected: identifier")),
        }
    }
}

fn found(word: &str, expected: &str) -> SelectorError {
    SelectorError(format!("found '{word}', {expected}"))
}
