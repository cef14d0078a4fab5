//! The tokens of the TCP listener, from a file that nobody else can read.

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

/// The largest token file that is read, in bytes.
const MAX_SIZE: u64 = 64 << 10;

/// The shortest token, in bytes: 16 random hexadecimal digits are 64 bits, far
/// beyond what can be tried out over a socket.
const SHORTEST: usize = 16;

/// The longest token, in bytes.
const LONGEST: usize = 256;

/// How many tokens there may be.
const MOST: usize = 256;

/// Who bears which token. Names are unique, and so are tokens, of which none is
/// kept: what was presented is looked up by its digest, so how long that takes
/// says nothing of any token that there is.
#[derive(Clone)]
pub struct Tokens {
    names: HashMap<TokenDigest, TokenName>,
}

/// The SHA-256 of a token.
type TokenDigest = [u8; 32];

fn digest(token: &[u8]) -> TokenDigest {
    Sha256::digest(token).into()
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
    /// Whose token was presented.
    #[must_use]
    pub fn name_of(&self, presented: &[u8]) -> Option<&TokenName> {
        self.names.get(&digest(presented))
    }

    /// Whether there is a token of this name.
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
    let mut tokens = HashMap::new();
    // The line that each was first at.
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

/// The name and the token of a line. A fault repeats nothing of the line: in a
/// wrong one, any part can be the token.
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
