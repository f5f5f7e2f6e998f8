//! Finding the volume manager that leads.
//!
//! A caller knows the addresses of one or more volume managers. A call goes to the one that answered last. When that one stands by
//! it says who leads, and the call goes there; when it does not answer, to the next one that is known. Every call of the protocol can be
//! repeated, so it does no harm that the first may have acted.
//!
//! An address that was learned is trusted no further than a configured one: what proves a volume manager is its certificate from the
//! cell's CA, before the caller's token is sent.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_libs_transport::{ApiError, CallError};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::code;

/// Where there are others, one that does not answer is given up after this, and the next one asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// The addresses of a cell's volume managers, `https://HOST:PORT`. In a configuration: one of them, or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeManagers(pub Vec<String>);

impl VolumeManagers {
    /// Whether there are any, and each is an address.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        match self.0.iter().find(|address| !is_address(address)) {
            Some(wrong) => Err(format!("`{wrong}` is not of the form https://HOST:PORT")),
            None if self.0.is_empty() => Err("the list names none".to_owned()),
            None => Ok(()),
        }
    }
}

impl From<&str> for VolumeManagers {
    fn from(address: &str) -> Self {
        Self(vec![address.to_owned()])
    }
}

impl From<String> for VolumeManagers {
    fn from(address: String) -> Self {
        Self(vec![address])
    }
}

impl<'de> Deserialize<'de> for VolumeManagers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = VolumeManagers;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an address https://HOST:PORT, or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, one: &str) -> Result<VolumeManagers, E> {
                Ok(one.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<VolumeManagers, A::Error> {
                let mut addresses = Vec::new();
                while let Some(address) = list.next_element::<String>()? {
                    addresses.push(address);
                }
                if addresses.is_empty() {
                    return Err(A::Error::custom("the list names no volume manager"));
                }
                Ok(VolumeManagers(addresses))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

/// `https://HOST:PORT`, and nothing behind it.
fn is_address(text: &str) -> bool {
    let host = text.strip_prefix("https://").unwrap_or_default();
    !host.is_empty() && host.len() <= 1024 && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c))
}

/// Who is asked, shared by all clones of a client.
#[derive(Debug)]
pub(crate) struct Leader {
    known: Vec<String>,
    current: Mutex<String>,
}

impl Leader {
    pub fn new(known: VolumeManagers) -> Self {
        let current = known.0.first().cloned().unwrap_or_default();
        Self { known: known.0, current: Mutex::new(current) }
    }

    fn current(&self) -> MutexGuard<'_, String> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call to the one that leads, or answers the last error of those that were asked. Each is asked once; what they name
    /// as the leader is asked besides.
    pub async fn call<T, F>(&self, deadline: Duration, call: impl Fn(String, Duration) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut address = self.current().clone();
        let mut asked = Vec::new();
        loop {
            let is_only_one = self.known.len() == 1 && self.known[0] == address;
            let patience = if is_only_one { deadline } else { deadline.min(PATIENCE) };
            let answer = call(address.clone(), patience).await;
            let named = match &answer {
                Err(CallError::Api(error)) if error.code == code::NOT_LEADER => named(error),
                Err(CallError::Unreachable { .. } | CallError::Timeout { .. }) => None,
                // It leads, whatever it says.
                _ => {
                    *self.current() = address;
                    return answer;
                }
            };
            asked.push(address);
            let is_new = |next: &String| !asked.contains(next);
            let next = named.filter(|next| is_new(next) && asked.len() <= self.known.len());
            match next.or_else(|| self.known.iter().find(|known| is_new(known)).cloned()) {
                Some(next) => address = next,
                // The next call begins with another one.
                None => {
                    *self.current() = self.after(&asked[0]);
                    return answer;
                }
            }
        }
    }

    /// The configured address after this one, in a circle; the first one after one that was learned.
    fn after(&self, address: &str) -> String {
        let place = self.known.iter().position(|known| known == address).map_or(0, |place| place + 1);
        self.known.get(place % self.known.len().max(1)).cloned().unwrap_or_default()
    }
}

/// The leader that a standby names.
fn named(error: &ApiError) -> Option<String> {
    error.detail.get("leader")?.as_str().filter(|address| is_address(address)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use holdfast_libs_transport::{ApiError, CallError};
    use serde_json::json;

    use super::{Leader, PATIENCE, VolumeManagers};

    const LONG: Duration = Duration::from_secs(60);

    /// What each address does, and who was asked.
    struct World {
        standbys: HashMap<&'static str, Option<&'static str>>,
        leaders: Vec<&'static str>,
        asked: Mutex<Vec<String>>,
    }

    impl World {
        fn answer(&self, address: &str) -> Result<String, CallError> {
            self.asked.lock().unwrap().push(address.to_owned());
            if self.leaders.contains(&address) {
                return Ok(address.to_owned());
            }
            match self.standbys.get(address) {
                None => Err(CallError::Unreachable { url: address.to_owned(), detail: "refused".to_owned() }),
                Some(leader) => {
                    let error = ApiError::new(http::StatusCode::SERVICE_UNAVAILABLE, "not_leader", "it stands by");
                    Err(error.with_detail(json!({ "leader": leader })).into())
                }
            }
        }
    }

    async fn ask(leader: &Leader, world: &World) -> (Option<String>, Vec<String>) {
        world.asked.lock().unwrap().clear();
        let answer = leader.call(LONG, |address: String, _| std::future::ready(world.answer(&address))).await;
        (answer.ok(), world.asked.lock().unwrap().clone())
    }

    fn world(leaders: &[&'static str], standbys: &[(&'static str, Option<&'static str>)]) -> World {
        World { leaders: leaders.to_vec(), standbys: standbys.iter().copied().collect(), asked: Mutex::default() }
    }

    const A: &str = "https://a:1";
    const B: &str = "https://b:1";
    const C: &str = "https://c:1";

    fn names(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|address| (*address).to_owned()).collect()
    }

    #[tokio::test]
    async fn the_leader_that_a_standby_names_is_asked_and_remembered() {
        let leader = Leader::new(VolumeManagers(names(&[A])));
        let cell = world(&[C], &[(A, Some(C))]);
        assert_eq!(ask(&leader, &cell).await, (Some(C.to_owned()), names(&[A, C])));
        assert_eq!(ask(&leader, &cell).await, (Some(C.to_owned()), names(&[C])));
        // It dies: the one that is configured knows who is next.
        let cell = world(&[A], &[]);
        assert_eq!(ask(&leader, &cell).await, (Some(A.to_owned()), names(&[C, A])));
    }

    #[tokio::test]
    async fn the_next_one_is_asked_when_one_does_not_answer_and_each_only_once() {
        let leader = Leader::new(VolumeManagers(names(&[A, B, C])));
        assert_eq!(ask(&leader, &world(&[C], &[(B, None)])).await, (Some(C.to_owned()), names(&[A, B, C])));
        // Two that name each other, and one that names what is no address.
        let lost = world(&[], &[(A, Some(B)), (B, Some(A)), (C, Some("https://user@evil/x"))]);
        assert_eq!(ask(&leader, &lost).await, (None, names(&[C, A, B])));
        assert_eq!(ask(&leader, &lost).await, (None, names(&[A, B, C])), "another one comes first then");
    }

    #[tokio::test]
    async fn a_chain_of_names_comes_to_an_end() {
        let leader = Leader::new(VolumeManagers(names(&[A])));
        let chain = world(&[], &[(A, Some(B)), (B, Some(C)), (C, Some("https://d:1"))]);
        assert_eq!(ask(&leader, &chain).await, (None, names(&[A, B])));
    }

    #[tokio::test]
    async fn only_where_there_are_others_a_call_is_given_up_early() {
        for (known, expected) in [(names(&[A]), LONG), (names(&[A, B]), PATIENCE)] {
            let leader = Leader::new(VolumeManagers(known));
            let seen = leader.call(LONG, |_, deadline| std::future::ready(Ok(deadline))).await.unwrap();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_configuration_names_one_or_several() {
        let parse = |text: &str| serde_json::from_str::<VolumeManagers>(text);
        assert_eq!(parse(r#""https://a:1""#).unwrap(), VolumeManagers(names(&[A])));
        assert_eq!(parse(r#"["https://a:1", "https://b:1"]"#).unwrap(), VolumeManagers(names(&[A, B])));
        for (text, what) in [("[]", "names no volume manager"), ("1", "https://HOST:PORT, or a list")] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        for wrong in ["http://a:1", "a:1", "https://", "https://a:1/path", "https://u@a:1"] {
            let error = VolumeManagers::from(wrong).check().unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
        assert_eq!(VolumeManagers(names(&[A, "https://[::1]:7001"])).check(), Ok(()));
    }
}
