//! The tokens of the TCP listener, from a file that nobody else can read.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::{
    input::{open_regular, read_bounded},
    sources::listed,
};

/// The largest token file that is read, in bytes.
const MAX_SIZE: u64 = 64 << 10;

/// The shortest token, in bytes: 16 random hexadecimal digits are 64 bits, far
/// beyond what can be tried out over a socket.
const SHORTEST: usize = 16;

/// The longest token, in bytes. It is the length that every comparison has.
const LONGEST: usize = 256;

/// How many tokens there may be: each request is compared with all of them.
const MOST: usize = 256;

/// What a token's name is, in words.
pub(super) const NAME_RULE: &str = "1 to 32 of a-z, 0-9, _ and - are allowed";

/// Whether this can be a token's name.
pub(super) fn is_name(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    (1..=32).contains(&text.len()) && text.bytes().all(allowed)
}

/// Who bears which token. Names are unique, and so are tokens.
#[derive(Clone)]
pub struct Tokens {
    tokens: Vec<(String, Padded)>,
}

/// Why a token file was refused. Never repeats what is in the file.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It could not be read.
    #[error("token file {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else can read or change it.
    #[error("token file {} is refused: {what}", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// By what, and what is wanted.
        what: String,
    },
    /// What it says is wrong, in one place or several.
    #[error("token file {} is refused:{}", path.display(), listed(faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong: which line, from 1, and what is allowed.
        faults: Vec<String>,
    },
}

/// Reads the file: one `name:token` a line. Empty lines are allowed, and lines
/// that begin with `#`.
///
/// # Errors
/// [`TokensError`] if anybody but root and the agent's user has access to the
/// file, or any line of it is wrong; then no token of it holds.
pub fn read(path: &Path) -> Result<Tokens, TokensError> {
    let unreadable = |source| TokensError::Read {
        path: path.to_owned(),
        source,
    };
    let file = open_regular(path).map_err(unreadable)?;
    // Asked of what was opened: the path may name another file by now.
    let exposure = exposure(&file).map_err(unreadable)?;
    if let Some(what) = exposure {
        return Err(TokensError::Exposed {
            path: path.to_owned(),
            what,
        });
    }
    let text = read_bounded(file, MAX_SIZE).map_err(unreadable)?;
    parse(&text).map_err(|faults| TokensError::Faults {
        path: path.to_owned(),
        faults,
    })
}

impl Tokens {
    /// Whose token was presented. Takes the same time whichever token it is,
    /// and for any that is like one: all are compared, over their full length.
    #[must_use]
    pub fn name_of(&self, presented: &[u8]) -> Option<&str> {
        let presented = Padded::new(presented);
        // Which one it is, from 1; 0 is none.
        let mut found = 0_u64;
        for (place, (_, token)) in (1..).zip(&self.tokens) {
            found.conditional_assign(&place, token.is(&presented));
        }
        let place = usize::try_from(found).ok()?.checked_sub(1)?;
        self.tokens.get(place).map(|(name, _)| name.as_str())
    }

    /// Whether there is a token of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tokens.iter().any(|(known, _)| known == name)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.tokens.iter().map(|(name, _)| name);
        formatter.debug_set().entries(names).finish()
    }
}

/// A token in a form that has one length for all, as the comparison of slices
/// in constant time wants it (subtle, `ConstantTimeEq`: slices of unequal
/// length are told apart at once).
#[derive(Clone)]
struct Padded {
    bytes: [u8; LONGEST],
    length: u64,
}

impl Padded {
    /// Of what is too long to be a token only the beginning is kept; its length
    /// is no token's.
    fn new(token: &[u8]) -> Self {
        let mut bytes = [0; LONGEST];
        for (to, from) in bytes.iter_mut().zip(token) {
            *to = *from;
        }
        let length = token.len() as u64;
        Self { bytes, length }
    }

    fn is(&self, other: &Self) -> Choice {
        self.bytes.ct_eq(&other.bytes) & self.length.ct_eq(&other.length)
    }
}

/// Who else has access to the file, if anybody has. An access control list
/// shows in the group's bits too: they are its mask (acl(5)).
fn exposure(file: &File) -> io::Result<Option<String>> {
    let metadata = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    Ok(exposed(metadata.uid(), metadata.mode(), own))
}

fn exposed(owner: u32, mode: u32, own: u32) -> Option<String> {
    if owner != 0 && owner != own {
        let mut wanted = "root is wanted".to_owned();
        if own != 0 {
            let _ = write!(wanted, ", or the agent's user, {own}");
        }
        return Some(format!("its owner is user {owner}; {wanted}"));
    }
    (mode & 0o077 != 0).then(|| {
        format!(
            "its mode is {:04o}, so others than its owner have access; 0600 is wanted",
            mode & 0o7777
        )
    })
}

fn parse(text: &str) -> Result<Tokens, Vec<String>> {
    let mut tokens = Vec::new();
    // The line that each was first at.
    let (mut names, mut secrets) = (HashMap::new(), HashMap::new());
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match entry(line) {
            Ok((name, token)) => {
                let first = *names.entry(name).or_insert(number);
                if first != number {
                    faults.push(format!(
                        "line {number}: its name is already at line {first}"
                    ));
                }
                let first = *secrets.entry(token).or_insert(number);
                if first != number {
                    faults.push(format!(
                        "line {number}: its token is already at line {first}; \
                         each is to have one of its own"
                    ));
                }
                tokens.push((name.to_owned(), Padded::new(token.as_bytes())));
            }
            Err(what) => faults.push(format!("line {number}: {what}")),
        }
    }
    if tokens.len() > MOST {
        faults.push(format!(
            "it has {} tokens; 1 to {MOST} are allowed",
            tokens.len()
        ));
    }
    if tokens.is_empty() && faults.is_empty() {
        faults.push("it has no token, so nobody could use the listener".into());
    }
    if faults.is_empty() {
        Ok(Tokens { tokens })
    } else {
        Err(faults)
    }
}

/// The name and the token of a line. A fault repeats nothing of the line: in a
/// wrong one, any part can be the token.
fn entry(line: &str) -> Result<(&str, &str), String> {
    let Some((name, token)) = line.split_once(':') else {
        return Err("no colon; name:token is wanted".into());
    };
    if !is_name(name) {
        return Err(format!("what is before the colon is no name: {NAME_RULE}"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "the token has a space or another character that is not allowed; \
             printable ASCII is"
                .into(),
        );
    }
    if !(SHORTEST..=LONGEST).contains(&token.len()) {
        return Err(format!(
            "the token has {} characters; {SHORTEST} to {LONGEST} are allowed",
            token.len()
        ));
    }
    Ok((name, token))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use proptest::prelude::*;

    use super::*;

    const FIRST: &str = "0123456789abcdef";
    const SECOND: &str = "0123456789abcdef:#0!~";

    fn two() -> Tokens {
        let text = format!("# comment: {FIRST}\n\nci:{FIRST}\nops_2-b:{SECOND}\n");
        parse(&text).unwrap()
    }

    #[test]
    fn each_token_is_known_by_its_name() {
        let tokens = two();
        assert_eq!(tokens.name_of(FIRST.as_bytes()), Some("ci"));
        assert_eq!(tokens.name_of(SECOND.as_bytes()), Some("ops_2-b"));
        assert!(tokens.has("ci") && !tokens.has("cd"));
    }

    #[test]
    fn cwe_798_nothing_but_a_whole_token_is_one() {
        let tokens = two();
        let mut near = vec![
            Vec::new(),
            b"ci".to_vec(),
            format!("ci:{FIRST}").into_bytes(),
            FIRST.to_uppercase().into_bytes(),
            vec![0; LONGEST],
            vec![b'0'; 100_000],
        ];
        for token in [FIRST, SECOND] {
            let token = token.as_bytes();
            near.push(token[..token.len() - 1].to_vec());
            near.push(token[1..].to_vec());
            // Padding is not part of a token.
            let mut longer = token.to_vec();
            longer.resize(token.len() + 1, 0);
            near.push(longer.clone());
            longer.resize(LONGEST, 0);
            near.push(longer.clone());
            longer.resize(LONGEST + 1, 0);
            near.push(longer);
            for at in 0..token.len() {
                let mut other = token.to_vec();
                other[at] ^= 1;
                near.push(other);
            }
        }
        for presented in near {
            assert_eq!(tokens.name_of(&presented), None, "{presented:?}");
        }
    }

    #[test]
    fn the_shortest_and_the_longest_token_and_name_are_taken_and_no_others() {
        let line = |name: usize, token: usize| {
            let (name, token) = ("n".repeat(name), "t".repeat(token));
            parse(&format!("{name}:{token}")).map(|tokens| {
                assert_eq!(tokens.name_of(token.as_bytes()), Some(name.as_str()));
            })
        };
        for (name, token) in [(1, SHORTEST), (32, SHORTEST), (1, LONGEST)] {
            assert_eq!(line(name, token), Ok(()));
        }
        for (name, token) in [
            (0, SHORTEST),
            (33, SHORTEST),
            (1, 0),
            (1, SHORTEST - 1),
            (1, LONGEST + 1),
        ] {
            assert!(line(name, token).is_err(), "{name} {token}");
        }
    }

    #[test]
    fn a_wrong_line_is_named_and_never_repeated() {
        const GOOD: &str = "ci:a-good-token-of-the-file";
        for (line, part) in [
            ("zzzz-secret-zzzz-secret", "no colon"),
            ("Zzzz-secret:zzzz-secret-zzzz-secret", "1 to 32"),
            (" zzzz-secret:zzzz-secret-zzzz-secret", "1 to 32"),
            (":zzzz-secret-zzzz-secret", "1 to 32"),
            ("zzzz: zzzz-secret-zzzz-secret", "printable"),
            ("zzzz:zzzz-secret-zzzz-secret ", "printable"),
            ("zzzz:zzzz-secret\u{e9}-zzzz-secret", "printable"),
            ("zzzz:zzzz-secret\0-zzzz-secret", "printable"),
            ("zzzz:zzzz-secret", "11 characters; 16 to 256"),
            ("zzzz:", "0 characters"),
            ("ci:zzzz-secret-zzzz-secret", "name is already at line 2"),
            (
                "zzzz:a-good-token-of-the-file",
                "token is already at line 2",
            ),
        ] {
            let faults = parse(&format!("\n{GOOD}\n# zzzz-secret\n{line}\n")).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            let fault = &faults[0];
            assert!(
                fault.starts_with("line 4: ") && fault.contains(part),
                "{fault}"
            );
            assert!(
                !fault.contains("zzzz") && !fault.contains("good"),
                "{fault}"
            );
        }
        // With another line in its place, nothing is wrong.
        assert!(parse(&format!("\n{GOOD}\n# zzzz-secret\ncd:{FIRST}\n")).is_ok());
    }

    #[test]
    fn every_wrong_line_is_named() {
        let faults = parse(&format!("a\nb\nci:{FIRST}\nci:{FIRST}\n")).unwrap_err();
        let lines: Vec<_> = faults.iter().map(|fault| &fault[..7]).collect();
        assert_eq!(lines, ["line 1:", "line 2:", "line 4:", "line 4:"]);
        let many = |number: usize| {
            let line = |place| format!("{place}:{place:016}\n");
            parse(&(0..number).map(line).collect::<String>())
        };
        assert!(many(256).is_ok());
        assert!(many(257).unwrap_err()[0].contains("257 tokens; 1 to 256"));
        for empty in ["", "\n\n", "# a\n#b:c\n"] {
            assert!(parse(empty).unwrap_err()[0].contains("no token"));
        }
    }

    #[test]
    fn debug_shows_names_alone() {
        assert_eq!(format!("{:?}", two()), "{\"ci\", \"ops_2-b\"}");
    }

    #[test]
    fn cwe_798_a_file_that_others_have_access_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("tokens");
        fs::write(&path, format!("ci:{FIRST}\n")).unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o700, true),
            (0o640, false),
            (0o620, false),
            (0o610, false),
            (0o604, false),
            (0o602, false),
            (0o601, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            match read(&path) {
                Ok(tokens) => {
                    assert!(good, "{mode:o}");
                    assert_eq!(tokens.name_of(FIRST.as_bytes()), Some("ci"));
                }
                Err(error) => {
                    assert!(
                        !good && matches!(error, TokensError::Exposed { .. }),
                        "{error}"
                    );
                    let said = error.to_string();
                    for part in [&format!("{mode:04o}"), "0600 is wanted", "tokens"] {
                        assert!(said.contains(part), "{said} lacks {part}");
                    }
                    assert!(!said.contains(FIRST), "{said}");
                }
            }
        }
    }

    #[test]
    fn cwe_798_a_file_of_another_user_is_refused() {
        assert_eq!(exposed(0, 0o100_600, 0), None);
        assert_eq!(exposed(0, 0o100_600, 7), None);
        assert_eq!(exposed(7, 0o100_600, 7), None);
        let said = exposed(8, 0o100_600, 7).unwrap();
        assert_eq!(
            said,
            "its owner is user 8; root is wanted, or the agent's user, 7"
        );
        let said = exposed(8, 0o100_600, 0).unwrap();
        assert_eq!(said, "its owner is user 8; root is wanted");
    }

    #[test]
    fn what_is_no_readable_regular_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let said = |path: &Path| read(path).unwrap_err().to_string();
        assert!(said(root.path()).contains("regular file"));
        assert!(said(Path::new("/dev/zero")).contains("regular file"));
        assert!(said(&root.path().join("none")).contains("cannot be read"));
        let path = root.path().join("tokens");
        fs::write(&path, [b'c', b'i', b':', 0xff]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(said(&path).contains("UTF-8"));
        fs::write(&path, "#".repeat(70_000)).unwrap();
        assert!(said(&path).contains("larger than 65536 bytes"));
        fs::write(&path, "ci:zzzz").unwrap();
        assert!(said(&path).contains("line 1: the token has 4 characters"));
        // A link is as good as the file that it leads to.
        let link = root.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(said(&link).contains("line 1"));
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(said(&link).contains("0644"));
    }

    proptest! {
        #[test]
        fn any_tokens_are_told_apart(
            given in prop::collection::btree_map(
                "[a-z0-9_-]{1,32}", "[!-~]{16,64}", 1..8,
            ),
            other in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let distinct: std::collections::BTreeSet<_> = given.values().collect();
            prop_assume!(distinct.len() == given.len());
            let lines: Vec<_> = given.iter().map(|(name, token)| format!("{name}:{token}")).collect();
            let tokens = parse(&lines.join("\n")).unwrap();
            for (name, token) in &given {
                prop_assert_eq!(tokens.name_of(token.as_bytes()), Some(name.as_str()));
            }
            if !given.values().any(|token| token.as_bytes() == other) {
                prop_assert_eq!(tokens.name_of(&other), None);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "(\\PC|[a-z#:\n]){0,200}") {
            let _ = parse(&text);
        }
    }
}
