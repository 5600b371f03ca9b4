//! Names that users give: of functions, layers and aliases.

/// Longest name, bytes: AWS Lambda's limit for a function.
pub const LONGEST: usize = 64;

/// Not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a name: it has 1 to 64 letters, digits, - and _ (ASCII)")]
pub struct NameError {
    /// What was given, cut where it is long.
    pub given: String,
}

impl NameError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        "Request.Name"
    }
}

/// Checks a name: `[a-zA-Z0-9-_]{1,64}`. Such a name is also safe as a file name and in a log line.
pub fn check(name: &str) -> Result<(), NameError> {
    let fits = (1..=LONGEST).contains(&name.len());
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Ok(());
    }
    Err(NameError { given: name.chars().take(LONGEST + 1).collect() })
}

#[cfg(test)]
mod tests {
    use super::check;
    use proptest::prelude::*;

    #[test]
    fn names_are_those_of_lambda() {
        for good in ["f", "A-b_9", &"x".repeat(64), "-", "_"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in
            ["", ".", "..", "../f", "a/b", "a b", "a\n", "a\0", "é", "a.b", "a:b", "%2e", &"x".repeat(65)]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_one_component_of_a_path(name: String) {
            if check(&name).is_ok() {
                let mut components = std::path::Path::new(&name).components();
                prop_assert!(matches!(components.next(), Some(std::path::Component::Normal(n)) if n == name.as_str()));
                prop_assert!(components.next().is_none());
            }
        }
    }
}
