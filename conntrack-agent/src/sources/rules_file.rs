//! The rules file: TOML, accepted or refused as a whole.
//!
//! The module walks the parsed document itself instead of letting serde do it, because
//! serde stops at the first fault and an operator wants to see all of them.

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

use super::RuleSet;
use super::listed;
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
    let path = path.to_owned();
    let text = match read_text(&path, MAX_SIZE) {
        Ok(text) => text,
        Err(source) => return Err(RulesFileError::Read { path, source }),
    };
    parse(&text, policy).map_err(|faults| RulesFileError::Faults { path, faults })
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
        reader.fault(
            &error.span().unwrap_or(0..0),
            format!("not TOML: {}", error.message()),
        );
    }
    // A document with syntax errors would only add faults that follow from them.
    if reader.faults.is_empty() {
        reader.document(document.get_ref());
    }
    if reader.faults.is_empty() {
        Ok(reader.rules)
    } else {
        reader
            .faults
            .sort_by_key(|fault| (fault.line, fault.column));
        Err(reader.faults)
    }
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
            let parsed: RouterId = self.parsed(id, text.parse())?;
            let line = self.position(&id.span()).0;
            if let Some(first) = self.routers.insert(parsed, line) {
                self.fault(
                    &id.span(),
                    format!(
                        "router {parsed} is already described at line {first}; \
                         give it all its helpers there"
                    ),
                );
                return None;
            }
            self.rules.name(parsed);
            Some(parsed)
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
        let protocol = self
            .required(table, "protocol", &span)
            .and_then(|value| self.protocol(value));
        let port = self
            .required(table, "port", &span)
            .and_then(|value| self.port(value));
        let helper = self.required(table, "helper", &span).and_then(|value| {
            let name = self.string(value)?;
            // Even if the protocol is unknown, a name can be wrong by itself.
            let protocols = protocol.map_or([Protocol::Tcp, Protocol::Udp], |known| [known; 2]);
            let found = protocols.map(|protocol| Helper::new(name, protocol));
            let helper = match found {
                [Ok(helper), _] | [_, Ok(helper)] => helper,
                [Err(error), _] => return self.parsed(value, Err(error)),
            };
            if let Some(objection) = self.policy.objection(helper) {
                self.fault(&value.span(), objection.to_string());
                return None;
            }
            Some(helper)
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
            self.fault(
                &span,
                format!("duplicate: router {router} already has {target}"),
            );
        }
    }

    fn protocol(&mut self, value: &Value<'_>) -> Option<Protocol> {
        match self.string(value)? {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            other => {
                let other: String = other.chars().take(64).collect();
                self.fault(
                    &value.span(),
                    format!("protocol {other:?} is not known; \"tcp\" and \"udp\" are allowed"),
                );
                None
            }
        }
    }

    fn port(&mut self, value: &Value<'_>) -> Option<Port> {
        let DeValue::Integer(given) = value.get_ref() else {
            self.fault(
                &value.span(),
                format!(
                    "port is {}; a whole number from 1 to 65535 is wanted",
                    kind(value)
                ),
            );
            return None;
        };
        // An integer beyond i64 is out of range in any case.
        let digits = given.as_str();
        let number =
            i64::from_str_radix(digits, given.radix()).unwrap_or(if digits.starts_with('-') {
                i64::MIN
            } else {
                i64::MAX
            });
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
            self.fault(
                &value.span(),
                format!(
                    "{name} is {}; an array of tables is wanted: {wanted}",
                    kind(value)
                ),
            );
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in array {
            match element.get_ref().as_table() {
                Some(table) => tables.push((element.span(), table)),
                None => self.fault(
                    &element.span(),
                    format!(
                        "an element of {name} is {}; a table is wanted",
                        kind(element)
                    ),
                ),
            }
        }
        tables
    }

    fn keys(&mut self, table: &DeTable<'_>, allowed: &[&str]) {
        for key in table.keys() {
            if !allowed.contains(&key.get_ref().as_ref()) {
                let given: String = key.get_ref().chars().take(64).collect();
                let allowed = allowed.join(", ");
                self.fault(
                    &key.span(),
                    format!("unknown key {given:?}; allowed here: {allowed}"),
                );
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
        if text.is_none() {
            self.fault(
                &value.span(),
                format!("{} stands where a string is wanted", kind(value)),
            );
        }
        text
    }

    fn parsed<T>(
        &mut self,
        value: &Value<'_>,
        result: Result<T, impl std::error::Error>,
    ) -> Option<T> {
        result
            .map_err(|error| self.fault(&value.span(), error.to_string()))
            .ok()
    }

    fn fault(&mut self, span: &Range<usize>, what: String) {
        let (line, column) = self.position(span);
        self.faults.push(Fault { line, column, what });
    }

    fn position(&self, span: &Range<usize>) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= span.start);
        let start = line
            .checked_sub(1)
            .and_then(|before| self.lines.get(before));
        let before = self.text.get(start.copied().unwrap_or(0)..span.start);
        (line, before.unwrap_or("").chars().count() + 1)
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    let behind_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(behind_newlines).collect()
}

fn kind(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => {
            format!("the string {:?}", text.chars().take(64).collect::<String>())
        }
        DeValue::Integer(_) => "an integer".into(),
        DeValue::Float(_) => "a float".into(),
        DeValue::Boolean(_) => "a boolean".into(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::Limits;

    const A: &str = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";
    const B: &str = "7ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";

    fn anything() -> Policy {
        Policy::new(Limits::default(), Helper::all(), Helper::all())
    }

    fn without_snmp() -> Policy {
        let present = Helper::all().filter(|helper| helper.name() != "snmp");
        Policy::new(Limits::default(), present, Helper::all())
    }

    fn one(entry: &str) -> String {
        format!("[[router]]\nid = \"{A}\"\nhelpers = [\n  {entry},\n]\n")
    }

    #[test]
    fn a_good_file_is_its_rules_in_order() {
        let text = format!(
            "[[router]]\nid = \"{A}\"\nhelpers = [ {{ protocol = \"tcp\", port = 21, helper = \"ftp\" }}, \
             {{ protocol = \"udp\", port = 0x45, helper = \"tftp\" }} ]\n\
             [[router]]\nid = \"{B}\"\n[[router.helpers]]\nprotocol = \"udp\"\nport = 1719\nhelper = \"h323\"\n"
        );
        let set = parse(&text, &anything()).unwrap();
        let rules: Vec<_> = set.rules().map(ToString::to_string).collect();
        assert_eq!(
            rules,
            [
                "ftp on tcp port 21",
                "tftp on udp port 69",
                "RAS on udp port 1719"
            ]
        );
    }

    #[test]
    fn no_rules_is_a_good_file() {
        for text in ["", "# nothing yet\n", "router = []"] {
            assert_eq!(parse(text, &anything()), Ok(RuleSet::default()), "{text:?}");
        }
        let no_helpers = format!("[[router]]\nid = \"{A}\"\nhelpers = []");
        assert_eq!(parse(&no_helpers, &anything()).unwrap().rules().count(), 0);
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        let check = |text: &str, line: usize, parts: &[&str]| {
            let faults = parse(text, &without_snmp()).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert_eq!(faults[0].line, line, "{faults:?}");
            for part in parts {
                assert!(faults[0].what.contains(part), "{faults:?} lacks {part}");
            }
        };
        let entry = |text: &str, parts: &[&str]| check(&one(text), 4, parts);
        entry(
            r#"{ protocol = "tcp", port = 0, helper = "ftp" }"#,
            &["port 0", "1 to 65535"],
        );
        entry(
            r#"{ protocol = "tcp", port = 65536, helper = "ftp" }"#,
            &["port 65536", "1 to 65535"],
        );
        entry(
            r#"{ protocol = "tcp", port = -1, helper = "ftp" }"#,
            &["port -1"],
        );
        entry(
            r#"{ protocol = "tcp", port = 99999999999999999999, helper = "ftp" }"#,
            &["out of range"],
        );
        entry(
            r#"{ protocol = "tcp", port = "ftp", helper = "ftp" }"#,
            &["\"ftp\"", "1 to 65535"],
        );
        entry(
            r#"{ protocol = "tcp", port = 21.0, helper = "ftp" }"#,
            &["a float"],
        );
        entry(
            r#"{ protocol = "sctp", port = 21, helper = "ftp" }"#,
            &["\"sctp\"", "udp"],
        );
        entry(
            r#"{ protocol = "tcp", port = 21, helper = "gopher" }"#,
            &["\"gopher\"", "ftp"],
        );
        entry(
            r#"{ protocol = "udp", port = 21, helper = "ftp" }"#,
            &["ftp", "it is for tcp"],
        );
        entry(
            r#"{ protocol = "udp", port = 161, helper = "snmp" }"#,
            &["this kernel", "snmp"],
        );
        entry(r#"{ protocol = "tcp", port = 21 }"#, &["helper is missing"]);
        entry(
            r#"{ protocol = "tcp", port = 21, helper = "ftp", prot = 1 }"#,
            &["\"prot\"", "protocol"],
        );
        entry("21", &["a table is wanted"]);
        entry(
            "{ protocol = \"tcp\", port = 21, helper = \"ftp\" }, { protocol = \"tcp\", port = 21, helper = \"ftp\" }",
            &["duplicate", "ftp on tcp port 21"],
        );
        check(
            "[[router]]\nid = \"x\"\nhelpers = []",
            2,
            &["\"x\"", "UUID"],
        );
        check(
            "[[router]]\nid = 7\nhelpers = []",
            2,
            &["a string is wanted"],
        );
        check("[[router]]\nhelpers = []", 1, &["id is missing"]);
        check(
            &format!("[[router]]\nid = \"{A}\""),
            1,
            &["helpers is missing"],
        );
        check("\n[[ruoter]]\n", 2, &["\"ruoter\"", "router"]);
        check("router = 1", 1, &["an integer", "[[router]]"]);
        check(
            &format!(
                "[[router]]\nid = \"{A}\"\nhelpers = []\n[[router]]\nid = \"{A}\"\nhelpers = []"
            ),
            5,
            &["already described at line 2"],
        );
        check("[[router]]\nid = \n", 2, &["not TOML"]);
    }

    #[test]
    fn all_faults_are_named_not_only_the_first() {
        let text = "[[router]]\nid = \"x\"\nhelpers = [\n \
            { protocol = \"tcp\", port = 0, helper = \"gopher\" },\n \
            { protocol = \"carrot\", port = 1, helper = \"ftp\" },\n]\nextra = 1\n";
        let lines: Vec<_> = parse(text, &anything())
            .unwrap_err()
            .iter()
            .map(|fault| fault.line)
            .collect();
        assert_eq!(lines, [2, 4, 4, 5, 7]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = parse(&text, &anything());
        }

        #[test]
        fn no_mutation_of_a_good_file_makes_it_panic(at in 0usize..200, with in "\\PC{0,3}") {
            let mut text: Vec<char> =
                one(r#"{ protocol = "tcp", port = 21, helper = "ftp" }"#).chars().collect();
            let at = at.min(text.len() - 1);
            text.splice(at..=at, with.chars());
            let _ = parse(&text.into_iter().collect::<String>(), &anything());
        }
    }
}
