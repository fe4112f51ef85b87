//! SCRAM-SHA-256 (RFC 5802, RFC 7677; PostgreSQL's manual, "SASL Authentication") on both sides, without channel binding.
//!
//! A client is checked against a [`Verifier`], as PostgreSQL keeps it in `pg_authid.rolpassword`. Its proof holds the client key
//! ([`Keys`]), which logs in to every server that has the same verifier: the password itself is never seen, and not needed.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram::{
    ScramSecret, ScramServerAuth, ScramServerAuthWaitingForClientFinal, random_nonce,
};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;

/// The mechanism's name.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// What PostgreSQL takes for a new password (`scram_iterations`), and how long its salt is, bytes.
const ITERATIONS: u32 = 4096;
const SALT_LENGTH: usize = 16;

/// What a server keeps of a password: salt, iterations, StoredKey and ServerKey.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

/// Without its keys.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, as in `pg_authid.rolpassword`.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| STANDARD.encode(bytes));
        write!(f, "{MECHANISM}${}:{salt}${stored}:{server}", self.iterations)
    }
}

impl Verifier {
    /// Reads PostgreSQL's form; `None` if it is another one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, keys) = text.strip_prefix(MECHANISM)?.strip_prefix('$')?.split_once('$')?;
        let (iterations, salt) = first.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some(Self {
            iterations: iterations.parse().ok().filter(|n| *n > 0)?,
            salt: STANDARD.decode(salt).ok()?,
            stored_key: STANDARD.decode(stored).ok()?.try_into().ok()?,
            server_key: STANDARD.decode(server).ok()?.try_into().ok()?,
        })
    }

    /// One for this password, with a salt of its own.
    #[must_use]
    pub fn of_password(password: &[u8]) -> Option<Self> {
        Self::parse(&postgres_protocol::password::scram_sha_256(password))
    }

    /// One that no password fits, for a user who isn't known: the same salt at each attempt, so that an attempt tells nothing of
    /// who exists (as PostgreSQL's mock authentication does).
    #[must_use]
    pub fn of_nobody(user: &[u8], secret: &[u8; 32]) -> Self {
        let of = |what: &[u8]| sign(&sign(secret, what), user);
        let salt = of(b"salt").get(..SALT_LENGTH).unwrap_or_default().to_vec();
        Self { iterations: ITERATIONS, salt, stored_key: of(b"stored"), server_key: of(b"server") }
    }
}

/// Random bytes; `None` where the system gives none.
#[must_use]
pub fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok().map(|()| bytes)
}

fn sign(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(HMAC_SHA256, key), message).as_ref());
    out
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn xor(mut left: [u8; 32], right: [u8; 32]) -> [u8; 32] {
    left.iter_mut().zip(right).for_each(|(l, r)| *l ^= r);
    left
}

/// The value of one attribute of a message (`r=...,s=...`).
fn attribute<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

/// Why a client, or a server, isn't believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What came isn't a message of the exchange.
    #[error("malformed SCRAM message: {0}")]
    Malformed(String),
    /// The proof doesn't fit the verifier.
    #[error("password authentication failed")]
    WrongPassword,
    /// The server keeps another verifier than the client was checked against: its key says nothing there.
    #[error("the server keeps another SCRAM verifier of this role than the one that the client was checked against")]
    OtherVerifier,
    /// The server doesn't know the password itself.
    #[error("the server's signature is wrong: it doesn't know this role's verifier")]
    NotTheServer,
}

/// A client that is being asked: server side, between its first and its final message.
#[derive(Debug)]
pub struct Challenge {
    waiting: ScramServerAuthWaitingForClientFinal,
    verifier: Verifier,
    /// client-first-message-bare and server-first-message.
    said: String,
}

impl Challenge {
    /// Takes the client's first message; gives the server's.
    ///
    /// # Errors
    /// [`Error::Malformed`], also where the client insists on channel binding.
    pub fn begin(verifier: Verifier, client_first: &[u8]) -> Result<(Self, String), Error> {
        let malformed = |what: &str| Error::Malformed(what.to_owned());
        let text = std::str::from_utf8(client_first).map_err(|_| malformed("not UTF-8"))?;
        let bare = text.splitn(3, ',').nth(2).ok_or_else(|| malformed("no header"))?.to_owned();
        let secret = ScramSecret::Verifier {
            salt: verifier.salt.clone(),
            iterations: verifier.iterations as usize,
            stored_key: verifier.stored_key.to_vec(),
            server_key: verifier.server_key.to_vec(),
        };
        let begun = ScramServerAuth::new().on_client_first_message_with_secret(client_first, secret);
        let (server_first, waiting) = begun.map_err(|error| malformed(&error.to_string()))?;
        Ok((Self { waiting, verifier, said: format!("{bare},{server_first}") }, server_first))
    }

    /// Takes the client's final message; gives the server's, and the keys that the proof holds.
    ///
    /// # Errors
    /// [`Error::WrongPassword`], [`Error::Malformed`].
    pub fn finish(self, client_final: &[u8]) -> Result<(Keys, String), Error> {
        let malformed = |what: &str| Error::Malformed(what.to_owned());
        let text = std::str::from_utf8(client_final).map_err(|_| malformed("not UTF-8"))?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or_else(|| malformed("no proof"))?;
        let proof: [u8; 32] =
            STANDARD.decode(proof).ok().and_then(|p| p.try_into().ok()).ok_or_else(|| malformed("the proof"))?;
        let signature = sign(&self.verifier.stored_key, format!("{},{without_proof}", self.said).as_bytes());
        let client_key = xor(proof, signature);
        // the client key is checked before the library's own check, whose error has no kind of its own for it
        if hash(&client_key) != self.verifier.stored_key {
            return Err(Error::WrongPassword);
        }
        let server_final =
            self.waiting.on_client_final_message(client_final).map_err(|error| malformed(&error.to_string()))?;
        Ok((Keys { client_key, verifier: self.verifier }, server_final))
    }
}

/// What a client's proof gives away: enough to log in wherever the same verifier is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    client_key: [u8; 32],
    verifier: Verifier,
}

/// Nothing of them.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// What a session is logged in with.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// The client's own key.
    Keys(Keys),
    /// A password.
    Password(Vec<u8>),
}

/// Nothing of it.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys(_) => "Keys",
            Self::Password(_) => "Password",
        })
    }
}

/// The exchange with a server: client side.
pub struct Login(Way);

enum Way {
    Keys { keys: Keys, bare: String, expected: Option<[u8; 32]> },
    Password(Box<ScramSha256>),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

impl Login {
    /// Gives the client's first message.
    #[must_use]
    pub fn begin(credential: &Credential) -> (Self, Vec<u8>) {
        match credential {
            Credential::Password(password) => {
                let exchange = ScramSha256::new(password, ChannelBinding::unsupported());
                let first = exchange.message().to_vec();
                (Self(Way::Password(Box::new(exchange))), first)
            }
            Credential::Keys(keys) => {
                let bare = format!("n=,r={}", random_nonce());
                let first = format!("n,,{bare}").into_bytes();
                (Self(Way::Keys { keys: keys.clone(), bare, expected: None }), first)
            }
        }
    }

    /// Takes the server's first message; gives the client's final one.
    ///
    /// # Errors
    /// [`Error::OtherVerifier`], [`Error::Malformed`].
    pub fn proof(&mut self, server_first: &[u8]) -> Result<Vec<u8>, Error> {
        match &mut self.0 {
            Way::Password(exchange) => {
                exchange.update(server_first).map_err(|error| Error::Malformed(error.to_string()))?;
                Ok(exchange.message().to_vec())
            }
            Way::Keys { keys, bare, expected } => {
                let malformed = || Error::Malformed("the server's first message".to_owned());
                let text = std::str::from_utf8(server_first).map_err(|_| malformed())?;
                let [nonce, salt, iterations] = ["r", "s", "i"].map(|name| attribute(text, name));
                let (Some(nonce), Some(salt), Some(iterations)) = (nonce, salt, iterations) else {
                    return Err(malformed());
                };
                let own = attribute(bare, "r").unwrap_or_default();
                if !nonce.starts_with(own) || nonce.len() == own.len() {
                    return Err(malformed());
                }
                let same_salt = STANDARD.decode(salt).is_ok_and(|salt| salt == keys.verifier.salt);
                if !same_salt || iterations.parse() != Ok(keys.verifier.iterations) {
                    return Err(Error::OtherVerifier);
                }
                let without_proof = format!("c=biws,r={nonce}");
                let message = format!("{bare},{text},{without_proof}");
                let proof = xor(keys.client_key, sign(&keys.verifier.stored_key, message.as_bytes()));
                *expected = Some(sign(&keys.verifier.server_key, message.as_bytes()));
                Ok(format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes())
            }
        }
    }

    /// Takes the server's final message.
    ///
    /// # Errors
    /// [`Error::NotTheServer`].
    pub fn finish(mut self, server_final: &[u8]) -> Result<(), Error> {
        match &mut self.0 {
            Way::Password(exchange) => exchange.finish(server_final).map_err(|_| Error::NotTheServer),
            Way::Keys { expected, .. } => {
                let signature = std::str::from_utf8(server_final).ok().and_then(|text| attribute(text, "v"));
                let signature = signature.and_then(|text| STANDARD.decode(text).ok());
                match (signature, expected) {
                    (Some(signature), Some(expected)) if signature == *expected => Ok(()),
                    _ => Err(Error::NotTheServer),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A whole exchange; the keys that it gave.
    fn exchange(verifier: &Verifier, credential: &Credential) -> Result<Keys, Error> {
        let (mut login, first) = Login::begin(credential);
        let (challenge, server_first) = Challenge::begin(verifier.clone(), &first)?;
        let proof = login.proof(server_first.as_bytes())?;
        let (keys, server_final) = challenge.finish(&proof)?;
        login.finish(server_final.as_bytes())?;
        Ok(keys)
    }

    #[test]
    fn the_key_of_a_client_logs_in_where_the_same_verifier_is_kept() {
        let verifier = Verifier::of_password("pa\u{df}, =wort".as_bytes()).unwrap();
        let keys = exchange(&verifier, &Credential::Password("pa\u{df}, =wort".into())).unwrap();
        assert_eq!(exchange(&verifier, &Credential::Keys(keys.clone())), Ok(keys.clone()));
        let again = Verifier::of_password("pa\u{df}, =wort".as_bytes()).unwrap();
        assert_eq!(exchange(&again, &Credential::Keys(keys)), Err(Error::OtherVerifier));
        assert_eq!(exchange(&verifier, &Credential::Password(b"other".to_vec())), Err(Error::WrongPassword));
    }

    #[test]
    fn a_verifier_is_read_and_written_as_postgresql_has_it() {
        let verifier = Verifier::of_password(b"x").unwrap();
        assert_eq!(Verifier::parse(&verifier.to_string()), Some(verifier));
        for wrong in ["", "md5abc", "SCRAM-SHA-256$4096:c2FsdA==", "SCRAM-SHA-256$0:c2FsdA==$c2FsdA==:c2FsdA=="] {
            assert_eq!(Verifier::parse(wrong), None);
        }
    }

    #[test]
    fn nobody_is_asked_in_the_same_way_each_time() {
        let nobody = Verifier::of_nobody(b"who", &[7; 32]);
        assert_eq!(nobody, Verifier::of_nobody(b"who", &[7; 32]));
        assert_ne!(nobody.salt, Verifier::of_nobody(b"other", &[7; 32]).salt);
        assert_eq!(nobody.iterations, ITERATIONS);
        assert_eq!(exchange(&nobody, &Credential::Password(vec![7; 32])), Err(Error::WrongPassword));
    }

    #[test]
    fn a_server_that_does_not_know_the_verifier_is_found_out() {
        let verifier = Verifier::of_password(b"x").unwrap();
        let credential = Credential::Keys(exchange(&verifier, &Credential::Password(b"x".to_vec())).unwrap());
        let false_one = Verifier { server_key: [0; 32], ..verifier };
        assert_eq!(exchange(&false_one, &credential), Err(Error::NotTheServer));
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_makes_it_panic(first in ".{0,80}", last in any::<Vec<u8>>(), cut in 0usize..200) {
            let verifier = Verifier::of_nobody(b"x", &[1; 32]);
            let _ = Challenge::begin(verifier.clone(), first.as_bytes());
            let (challenge, _) = Challenge::begin(verifier.clone(), b"n,,n=,r=abc").unwrap();
            let _ = challenge.finish(&last);
            let (mut login, mine) = Login::begin(&Credential::Password(b"y".to_vec()));
            let (challenge, theirs) = Challenge::begin(verifier, &mine).unwrap();
            let mut proof = login.proof(theirs.as_bytes()).unwrap();
            proof.truncate(cut);
            prop_assert!(challenge.finish(&proof).is_err());
            let _ = login.proof(&last);
            prop_assert!(login.finish(&last).is_err());
        }
    }
}
