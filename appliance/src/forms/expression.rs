//! Arithmetic over the numbers of a form: `weight / (height / 100) ^ 2`.

/// Longest expression, bytes, and deepest nesting: a template is typed by a person.
const BYTES_MAX: usize = 300;
const DEPTH_MAX: usize = 20;

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(f64),
    Name(String),
    Negative(Box<Node>),
    Two(char, Box<Node>, Box<Node>),
}

/// An expression that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    root: Node,
    text: String,
}

impl Expression {
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Expression, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("a calculation has at most {BYTES_MAX} characters"));
        }
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens: &tokens, at: 0 };
        let root = parser.sum(0)?;
        match parser.peek() {
            None => Ok(Expression { root, text: text.trim().to_owned() }),
            Some(token) => Err(format!("“{}” is not expected there", token.said())),
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The questions whose numbers it needs.
    pub fn names(&self) -> Vec<&str> {
        let mut found = Vec::new();
        collect(&self.root, &mut found);
        found
    }

    /// Its value; `None` while a number is missing or where the arithmetic has none.
    pub fn value(&self, number: &dyn Fn(&str) -> Option<f64>) -> Option<f64> {
        evaluate(&self.root, number).filter(|v| v.is_finite())
    }
}

fn collect<'n>(node: &'n Node, found: &mut Vec<&'n str>) {
    match node {
        Node::Number(_) => {}
        Node::Name(name) => found.push(name),
        Node::Negative(inner) => collect(inner, found),
        Node::Two(_, left, right) => {
            collect(left, found);
            collect(right, found);
        }
    }
}

fn evaluate(node: &Node, number: &dyn Fn(&str) -> Option<f64>) -> Option<f64> {
    Some(match node {
        Node::Number(value) => *value,
        Node::Name(name) => number(name)?,
        Node::Negative(inner) => -evaluate(inner, number)?,
        Node::Two(sign, left, right) => {
            let (left, right) = (evaluate(left, number)?, evaluate(right, number)?);
            match sign {
                '+' => left + right,
                '-' => left - right,
                '*' => left * right,
                '/' if right == 0.0 => return None,
                '/' => left / right,
                _ => left.powf(right),
            }
        }
    })
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(f64),
    Name(String),
    Sign(char),
}

impl Token {
    fn said(&self) -> String {
        match self {
            Token::Number(n) => n.to_string(),
            Token::Name(name) => name.clone(),
            Token::Sign(c) => c.to_string(),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = |fits: fn(char) -> bool| rest.find(|c| !fits(c)).unwrap_or(rest.len());
        let (token, used) = if first.is_ascii_digit() {
            let used = length(|c| c.is_ascii_digit() || c == '.');
            let number = rest.get(..used).and_then(|n| n.parse().ok()).ok_or("a number cannot be read")?;
            (Token::Number(number), used)
        } else if first.is_ascii_alphabetic() {
            let used = length(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            (Token::Name(rest.get(..used).unwrap_or_default().to_owned()), used)
        } else if "+-*/^()".contains(first) {
            (Token::Sign(first), 1)
        } else {
            return Err(format!(
                "“{first}” cannot stand in a calculation: use numbers, names of questions, + - * / ^ and brackets"
            ));
        };
        found.push(token);
        rest = rest.get(used..).unwrap_or_default().trim_start();
    }
    Ok(found)
}

struct Parser<'t> {
    tokens: &'t [Token],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self, signs: &str) -> Option<char> {
        match self.peek() {
            Some(Token::Sign(c)) if signs.contains(*c) => {
                let c = *c;
                self.at += 1;
                Some(c)
            }
            _ => None,
        }
    }

    fn sum(&mut self, depth: usize) -> Result<Node, String> {
        if depth > DEPTH_MAX {
            return Err("there are too many brackets".into());
        }
        let mut left = self.product(depth)?;
        while let Some(sign) = self.take("+-") {
            left = Node::Two(sign, Box::new(left), Box::new(self.product(depth)?));
        }
        Ok(left)
    }

    fn product(&mut self, depth: usize) -> Result<Node, String> {
        let mut left = self.power(depth)?;
        while let Some(sign) = self.take("*/") {
            left = Node::Two(sign, Box::new(left), Box::new(self.power(depth)?));
        }
        Ok(left)
    }

    fn power(&mut self, depth: usize) -> Result<Node, String> {
        let base = self.atom(depth)?;
        match self.take("^") {
            Some(sign) => Ok(Node::Two(sign, Box::new(base), Box::new(self.atom(depth)?))),
            None => Ok(base),
        }
    }

    fn atom(&mut self, depth: usize) -> Result<Node, String> {
        if depth > DEPTH_MAX {
            return Err("there are too many signs in a row".into());
        }
        if self.take("-").is_some() {
            return Ok(Node::Negative(Box::new(self.atom(depth + 1)?)));
        }
        if self.take("(").is_some() {
            let inner = self.sum(depth + 1)?;
            return if self.take(")").is_some() { Ok(inner) } else { Err("a bracket is not closed".into()) };
        }
        let node = match self.peek() {
            Some(Token::Number(n)) => Node::Number(*n),
            Some(Token::Name(name)) => Node::Name(name.clone()),
            Some(token) => return Err(format!("“{}” is not expected there", token.said())),
            None => return Err("something is missing at the end".into()),
        };
        self.at += 1;
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Option<f64> {
        let number = |name: &str| match name {
            "weight" => Some(80.0),
            "height" => Some(200.0),
            _ => None,
        };
        Expression::parse(text).unwrap().value(&number)
    }

    #[test]
    fn calculates_as_people_do() {
        assert_eq!(value("weight / (height / 100) ^ 2"), Some(20.0));
        assert_eq!((value("2 + 3 * 4"), value("-2 - -3"), value("(2+3)*4")), (Some(14.0), Some(1.0), Some(20.0)));
        assert_eq!((value("1 / 0"), value("weight + other"), value("1/(weight-80)")), (None, None, None));
        assert_eq!(Expression::parse("a + b*a").unwrap().names(), ["a", "b", "a"]);
    }

    #[test]
    fn says_what_is_wrong() {
        for bad in ["", "1 +", "(1", "1 2", "a.b", "1..2", "system('x')", "a = b", ")"] {
            assert!(Expression::parse(bad).is_err(), "{bad}");
        }
        assert!(Expression::parse(&"(".repeat(200)).is_err() && Expression::parse(&"-".repeat(250)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_refused(text in "[-+*/^() a-z0-9.]{0,60}") {
            if let Ok(expression) = Expression::parse(&text) {
                let _ = expression.value(&|_| Some(1.5));
            }
        }
    }
}
