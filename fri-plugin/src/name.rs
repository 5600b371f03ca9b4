//! Names that users give: of functions, layers and aliases.

use seedtree::runtime::Runtime;

/// Longest name, bytes: AWS Lambda's limit for a function.
pub const LONGEST: usize = 64;

/// Not a name. Of a function that is to be deployed it is told as `Function.Spec`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has other characters, or too many.
    #[error("{given:?} is not a name: it has 1 to 64 letters, digits, - and _ (ASCII)")]
    Form {
        /// What was given, cut where it is long.
        given: String,
    },
    /// It is a seed's of the node's own.
    #[error("{given} is the name of a seed of the node's own: give the function another one")]
    Reserved {
        /// What was given.
        given: String,
    },
}

/// Checks a name: `[a-zA-Z0-9-_]{1,64}`. Such a name is also safe as a file name and in a log line.
pub fn check(name: &str) -> Result<(), NameError> {
    let fits = (1..=LONGEST).contains(&name.len());
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Ok(());
    }
    Err(NameError::Form { given: name.chars().take(LONGEST + 1).collect() })
}

/// Checks the name of a function: its seed stands beside those of the node's own, whose names are `os` and the runtimes'.
pub fn check_function(name: &str) -> Result<(), NameError> {
    check(name)?;
    if name == "os" || Runtime::named(name).is_some() {
        return Err(NameError::Reserved { given: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{NameError, check, check_function};
    use proptest::prelude::*;

    #[test]
    fn seeds_of_the_nodes_own_have_their_names_to_themselves() {
        for reserved in ["os", "python", "node", "provided"] {
            assert_eq!(check(reserved), Ok(()));
            assert!(matches!(check_function(reserved), Err(NameError::Reserved { .. })), "{reserved}");
        }
        for fine in ["python3", "Node", "os-", "nodejs"] {
            assert_eq!(check_function(fine), Ok(()), "{fine}");
        }
        assert!(matches!(check_function("../f"), Err(NameError::Form { .. })));
    }

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
