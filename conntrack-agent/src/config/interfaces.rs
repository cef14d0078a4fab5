//! Defines the `interfaces` key: patterns of the interfaces that are classified.

use glob::Pattern;

/// The length limit of a pattern. An interface's name has at most 15 bytes (`IFNAMSIZ`,
/// include/uapi/linux/if.h), and a set of letters takes more than one.
const MAX_LENGTH: usize = 64;

/// A set of patterns of interfaces' names: `*`, `?`, `[a-z]`, `[!a-z]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interfaces(Vec<Pattern>);

impl Default for Interfaces {
    fn default() -> Self {
        Self(vec![Pattern::new("*").unwrap_or_default()])
    }
}

impl Interfaces {
    /// Returns the interfaces that match any of the patterns.
    ///
    /// # Errors
    /// Returns the fault of each invalid pattern.
    pub fn matching(patterns: &[String]) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        if patterns.is_empty() {
            faults
                .push("interfaces is empty: at least one pattern is wanted, such as \"*\"".into());
        }
        let mut good = Vec::new();
        for pattern in patterns {
            match self::pattern(pattern) {
                Ok(pattern) => good.push(pattern),
                Err(fault) => faults.push(format!("interfaces has {fault}")),
            }
        }
        if faults.is_empty() {
            Ok(Self(good))
        } else {
            Err(faults)
        }
    }

    /// Returns the interfaces that match this one pattern.
    pub(super) fn one(pattern: Pattern) -> Self {
        Self(vec![pattern])
    }

    /// Returns whether an interface of this name is one of them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }
}

/// Parses a pattern of interfaces' names, or returns its fault.
pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    if text.is_empty() || text.len() > MAX_LENGTH || text.contains('/') {
        return Err(format!(
            "{text:?}: 1 to {MAX_LENGTH} bytes are allowed, without a /"
        ));
    }
    Pattern::new(text).map_err(|error| {
        format!(
            "{text:?}: {}, at character {}; *, ? and sets like [a-z] and [!a-z] are allowed",
            error.msg,
            error.pos + 1
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(patterns: &[&str]) -> Result<Interfaces, Vec<String>> {
        let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.into()).collect();
        Interfaces::matching(&patterns)
    }

    #[test]
    fn an_interface_is_in_if_one_pattern_matches_all_of_its_name() {
        let interfaces = of(&["qr-*", "q[g]-?", "exact", "[!a-z]*"]).unwrap();
        for (name, expected) in [
            ("qr-0123", true),
            ("qr-", true),
            ("qr-a.7", true),
            ("qg-1", true),
            ("exact", true),
            ("7up", true),
            ("aqr-1", false),
            ("qg-12", false),
            ("qh-1", false),
            ("exactly", false),
            ("up7", false),
            ("", false),
        ] {
            assert_eq!(interfaces.has(name), expected, "{name}");
        }
        assert_eq!(Interfaces::default(), of(&["*"]).unwrap());
        assert!(Interfaces::default().has("anything.at-all"));
    }

    #[test]
    fn every_pattern_that_is_none_is_named() {
        let long = "x".repeat(65);
        let faults = of(&["ok", "", "[a", "a**", "a/b", &long]).unwrap_err();
        assert_eq!(faults.len(), 5, "{faults:?}");
        for (fault, part) in faults
            .iter()
            .zip(["\"\"", "\"[a\"", "\"a**\"", "a/b", "xxx"])
        {
            assert!(fault.contains(part) && fault.contains("allowed"), "{fault}");
        }
        assert_eq!(of(&[]).unwrap_err().len(), 1);
    }
}
