//! Reads the rules file: TOML, accepted or refused as a whole.
//!
//! The module walks the parsed document itself instead of letting serde do it, because
//! serde stops at the first fault and an operator wants to see all of them.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{RuleSet, excerpt, listed, protocol};
use crate::{
    engine::Policy,
    input::read_text,
    model::{Helper, Port, Protocol, RouterId, RuleTarget},
};

/// The size limit of a rules file, in bytes: about a million rules.
const MAX_SIZE: u64 = 64 << 20;

/// The error when a rules file is refused.
#[derive(Debug, thiserror::Error)]
pub enum RulesFileError {
    /// The file could not be read.
    #[error("rules file {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file's content is wrong, in one place or several.
    #[error("rules file {} is refused:{}", path.display(), listed(faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// All faults, in the order of the file.
        faults: Vec<Fault>,
    },
}

/// A fault of a rules file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters, from 1.
    pub column: usize,
    /// The text that says what was given, and what is allowed.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, what } = self;
        write!(formatter, "line {line}, column {column}: {what}")
    }
}

/// Reads a rules file.
///
/// # Errors
/// Returns [`RulesFileError`] if any part of the file is wrong; then no part of it is
/// used.
pub fn read(path: &Path, policy: &Policy) -> Result<RuleSet, RulesFileError> {
    let text = read_text(path, MAX_SIZE).map_err(|source| RulesFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, policy).map_err(|faults| RulesFileError::Faults {
        path: path.to_owned(),
        faults,
    })
}

/// Parses the rules of a document.
///
/// # Errors
/// Returns every fault of the document, if it has any.
pub fn parse(text: &str, policy: &Policy) -> Result<RuleSet, Vec<Fault>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        text,
        lines: line_starts(text),
        policy,
        faults: Vec::new(),
        routers: HashMap::new(),
        rules: RuleSet::default(),
    };
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        reader.fault(&span, format!("not TOML: {}", error.message()));
    }
    // A document with syntax errors would only add faults that follow from them.
    if reader.faults.is_empty() {
        reader.document(document.get_ref());
    }
    let mut faults = reader.faults;
    if faults.is_empty() {
        return Ok(reader.rules);
    }
    faults.sort_by_key(|fault| (fault.line, fault.column));
    Err(faults)
}

type Value<'a> = Spanned<DeValue<'a>>;

struct Reader<'t> {
    text: &'t str,
    /// The offset at which each line starts.
    lines: Vec<usize>,
    policy: &'t Policy,
    faults: Vec<Fault>,
    /// The line at which each router was named, for the fault when it is named again.
    routers: HashMap<RouterId, usize>,
    rules: RuleSet,
}

impl Reader<'_> {
    fn document(&mut self, document: &DeTable<'_>) {
        self.keys(document, &["router"]);
        if let Some(routers) = document.get("router") {
            for router in self.tables(routers, "router", "[[router]]") {
                self.router(router);
            }
        }
    }

    fn router(&mut self, (span, table): (Range<usize>, &DeTable<'_>)) {
        self.keys(table, &["id", "helpers"]);
        let id = self.required(table, "id", &span).and_then(|id| {
            let text = self.string(id)?;
            let router: RouterId = self.parsed(id, text.parse())?;
            let line = self.position(&id.span()).0;
            if let Some(first) = self.routers.insert(router, line) {
                let what = format!(
                    "router {router} is already described at line {first}; \
                     give it all its helpers there"
                );
                return self.refuse(id, what);
            }
            self.rules.name(router);
            Some(router)
        });
        let Some(helpers) = self.required(table, "helpers", &span) else {
            return;
        };
        for helper in self.tables(helpers, "helpers", "[ { … }, … ]") {
            self.helper(id, helper);
        }
    }

    /// Reads a helper entry, even where its router is wrong, to find the entry's own
    /// faults.
    fn helper(&mut self, router: Option<RouterId>, (span, table): (Range<usize>, &DeTable<'_>)) {
        self.keys(table, &["protocol", "port", "helper"]);
        let protocol = self.required(table, "protocol", &span).and_then(|value| {
            let name = self.string(value)?;
            self.parsed(value, protocol(name))
        });
        let port = self
            .required(table, "port", &span)
            .and_then(|value| self.port(value));
        let helper = self.required(table, "helper", &span).and_then(|value| {
            let name = self.string(value)?;
            // Even if the protocol is unknown, a name can be wrong by itself.
            let protocols = protocol.map_or([Protocol::Tcp, Protocol::Udp], |known| [known; 2]);
            let [first, second] = protocols.map(|protocol| Helper::new(name, protocol));
            let helper = self.parsed(value, first.or(second))?;
            match self.policy.objection(helper) {
                Some(objection) => self.refuse(value, objection.to_string()),
                None => Some(helper),
            }
        });
        let (Some(router), Some(port), Some(helper), Some(_)) = (router, port, helper, protocol)
        else {
            return;
        };
        let target = RuleTarget {
            router,
            port,
            helper,
        };
        if !self.rules.insert(target) {
            let what = format!("duplicate: router {router} already has {target}");
            self.fault(&span, what);
        }
    }

    fn port(&mut self, value: &Value<'_>) -> Option<Port> {
        let DeValue::Integer(given) = value.get_ref() else {
            let kind = kind(value);
            let what = format!("port is {kind}; a whole number from 1 to 65535 is wanted");
            return self.refuse(value, what);
        };
        // An integer beyond i64 is out of range in any case.
        let digits = given.as_str();
        let beyond = if digits.starts_with('-') {
            i64::MIN
        } else {
            i64::MAX
        };
        let number = i64::from_str_radix(digits, given.radix()).unwrap_or(beyond);
        self.parsed(value, Port::try_from(number))
    }

    /// Returns the tables of an array; any other value in its place is a fault.
    fn tables<'a, 'i>(
        &mut self,
        value: &'a Value<'i>,
        name: &str,
        wanted: &str,
    ) -> Vec<(Range<usize>, &'a DeTable<'i>)> {
        let Some(array) = value.get_ref().as_array() else {
            let kind = kind(value);
            let what = format!("{name} is {kind}; an array of tables is wanted: {wanted}");
            self.fault(&value.span(), what);
            return Vec::new();
        };
        let table = |element: &'a Value<'i>| {
            if let Some(table) = element.get_ref().as_table() {
                return Some((element.span(), table));
            }
            let kind = kind(element);
            let what = format!("an element of {name} is {kind}; a table is wanted");
            self.refuse(element, what)
        };
        array.iter().filter_map(table).collect()
    }

    fn keys(&mut self, table: &DeTable<'_>, allowed: &[&str]) {
        for key in table.keys() {
            if !allowed.contains(&key.get_ref().as_ref()) {
                let (given, allowed) = (excerpt(key.get_ref()), allowed.join(", "));
                let what = format!("unknown key {given:?}; allowed here: {allowed}");
                self.fault(&key.span(), what);
            }
        }
    }

    fn required<'a, 'i>(
        &mut self,
        table: &'a DeTable<'i>,
        key: &str,
        place: &Range<usize>,
    ) -> Option<&'a Value<'i>> {
        let value = table.get(key);
        if value.is_none() {
            self.fault(place, format!("{key} is missing"));
        }
        value
    }

    fn string<'a>(&mut self, value: &'a Value<'_>) -> Option<&'a str> {
        let text = value.get_ref().as_str();
        text.or_else(|| {
            self.refuse(
                value,
                format!("{} stands where a string is wanted", kind(value)),
            )
        })
    }

    fn parsed<T>(&mut self, value: &Value<'_>, result: Result<T, impl fmt::Display>) -> Option<T> {
        match result {
            Ok(parsed) => Some(parsed),
            Err(error) => self.refuse(value, error.to_string()),
        }
    }

    /// Notes that a value is wrong, which therefore gives nothing.
    fn refuse<T>(&mut self, value: &Value<'_>, what: String) -> Option<T> {
        self.fault(&value.span(), what);
        None
    }

    fn fault(&mut self, span: &Range<usize>, what: String) {
        let (line, column) = self.position(span);
        self.faults.push(Fault { line, column, what });
    }

    fn position(&self, span: &Range<usize>) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= span.start);
        let start = self.lines.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..span.start).unwrap_or("");
        (line, before.chars().count() + 1)
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    let behind_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(behind_newlines).collect()
}

fn kind(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => format!("the string {:?}", excerpt(text)),
        DeValue::Integer(_) => "an integer".into(),
        DeValue::Float(_) => "a float".into(),
        DeValue::Boolean(_) => "a boolean".into(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}
