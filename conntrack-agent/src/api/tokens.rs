//! Reads the tokens of the TCP listener from a file that only its owner can read.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::{self, Write as _},
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{
    access::TokenName,
    input::{open_regular, read_bounded},
    sources::listed,
};

/// The size limit of a token file, in bytes.
const MAX_SIZE: u64 = 64 << 10;

/// The minimum length of a token, in bytes: 16 random hexadecimal digits are 64 bits, far
/// more than can be guessed over a socket.
const SHORTEST: usize = 16;

/// The maximum length of a token, in bytes.
const LONGEST: usize = 256;

/// The maximum number of tokens.
const MOST: usize = 256;

/// The names of the tokens, by digest. Names and tokens are unique. No token is kept in
/// memory, and a presented token is looked up by its digest, so that the duration of a
/// lookup says nothing about any known token.
#[derive(Clone)]
pub struct Tokens {
    names: HashMap<TokenDigest, TokenName>,
}

/// The SHA-256 digest of a token.
type TokenDigest = [u8; 32];

fn digest(token: &[u8]) -> TokenDigest {
    Sha256::digest(token).into()
}

/// The error when a token file is refused. It never repeats the file's content.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The file could not be read.
    #[error("token file {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another user can read or change the file.
    #[error("token file {} is refused: {what}", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// The owner or the mode, and what is wanted instead.
        what: String,
    },
    /// The file's content is wrong, in one place or several.
    #[error("token file {} is refused:{}", path.display(), listed(faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// All faults: each names the line, from 1, and what is allowed.
        faults: Vec<String>,
    },
}

/// Reads a token file: one `name:token` a line. Empty lines and lines that begin with `#`
/// are skipped.
///
/// # Errors
/// Returns [`TokensError`] if anybody but root and the agent's user has access to the
/// file, or any line of it is wrong; then none of its tokens is valid.
pub fn read(path: &Path) -> Result<Tokens, TokensError> {
    let unreadable = |source| TokensError::Read {
        path: path.to_owned(),
        source,
    };
    let file = open_regular(path).map_err(unreadable)?;
    // Asks the open file, because the path may name another file by now.
    if let Some(what) = exposure(&file).map_err(unreadable)? {
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
    /// Returns the name of a presented token, if it is known.
    #[must_use]
    pub fn name_of(&self, presented: &[u8]) -> Option<&TokenName> {
        self.names.get(&digest(presented))
    }

    /// Returns whether there is a token of this name.
    #[must_use]
    pub fn has(&self, name: &TokenName) -> bool {
        self.names.values().any(|known| known == name)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: BTreeSet<_> = self.names.values().map(ToString::to_string).collect();
        names.fmt(formatter)
    }
}

/// Returns what gives another user access to the file, if anything does. An access control
/// list shows in the bits of the group too, which are its mask (acl(5)).
fn exposure(file: &File) -> io::Result<Option<String>> {
    let metadata = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    Ok(exposed(metadata.uid(), metadata.mode(), own))
}

/// Returns what gives another user access to a file of this owner and mode.
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

/// Parses the lines of a token file, or returns all faults.
fn parse(text: &str) -> Result<Tokens, Vec<String>> {
    let mut tokens = HashMap::new();
    // The line on which each name and each token stands first.
    let (mut names, mut digests) = (HashMap::new(), HashMap::new());
    let mut faults = Vec::new();
    let mut count = 0;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match entry(line) {
            Ok((name, token)) => {
                let first = *names.entry(name.clone()).or_insert(number);
                if first != number {
                    faults.push(format!(
                        "line {number}: its name is already at line {first}"
                    ));
                }
                let digest = digest(token.as_bytes());
                let first = *digests.entry(digest).or_insert(number);
                if first != number {
                    faults.push(format!(
                        "line {number}: its token is already at line {first}; \
                         each is to have one of its own"
                    ));
                }
                tokens.insert(digest, name);
                count += 1;
            }
            Err(what) => faults.push(format!("line {number}: {what}")),
        }
    }
    if count > MOST {
        faults.push(format!("it has {count} tokens; 1 to {MOST} are allowed"));
    }
    if count == 0 && faults.is_empty() {
        faults.push("it has no token, so nobody could use the listener".into());
    }
    if faults.is_empty() {
        Ok(Tokens { names: tokens })
    } else {
        Err(faults)
    }
}

/// Parses a line into the name and the token. A fault repeats nothing of the line, because
/// any part of a wrong line can be the token.
fn entry(line: &str) -> Result<(TokenName, &str), String> {
    let Some((name, token)) = line.split_once(':') else {
        return Err("no colon; name:token is wanted".into());
    };
    let Some(name) = TokenName::new(name) else {
        let rule = TokenName::RULE;
        return Err(format!("what is before the colon is no name: {rule}"));
    };
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
mod tests;
