//! What happens to each part of the kernel's state when its sandbox is forked.
//!
//! Every field of a type declared with [`forkable!`](crate::forkable) says one of three words, and there is no default:
//! `inherit` (the child keeps it, field by field where the type is itself forkable), `reset` (the child starts afresh:
//! [`Reset::reset`]), `reissue` (the child gets a new value from the [`ForkArgs`]: [`Reissue::reissue`]).
//! [`inheritance_table`](crate::kernel::Kernel::inheritance_table) lists the declarations; docs/INHERITANCE.md is generated from it.

use crate::platform::Ns;

/// What a child is given at a fork.
#[derive(Clone, Debug, Default)]
pub struct ForkArgs {
    /// Identity of the new sandbox, unique on this node.
    pub sandbox_id: String,
    /// New hostname; empty keeps the seed's.
    pub hostname: String,
    /// 32 bytes of fresh entropy.
    pub entropy: [u8; 32],
    /// `CLOCK_MONOTONIC` when the seed was paused, ns.
    pub paused_at: Ns,
    /// `CLOCK_MONOTONIC` now, ns.
    pub now: Ns,
    /// Memory limit in bytes; `None` keeps the seed's.
    pub memory_limit: Option<u64>,
    /// Number of vCPUs; `None` keeps the seed's.
    pub cpus: Option<usize>,
}

/// A field that starts afresh in the child.
pub trait Reset {
    /// Replaces the inherited value.
    fn reset(&mut self, args: &ForkArgs);
}

/// A field that gets a new value in the child.
pub trait Reissue {
    /// Replaces the inherited value.
    fn reissue(&mut self, args: &ForkArgs);
}

/// A field's declared class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Kept.
    Inherited,
    /// Started afresh.
    Reset,
    /// Given anew.
    Reissued,
}

/// One line of the inheritance table.
#[derive(Clone, Copy, Debug)]
pub struct FieldClass {
    /// The type that holds the field.
    pub owner: &'static str,
    /// The field.
    pub field: &'static str,
    /// What a fork does to it.
    pub class: Class,
}

/// Declares a struct whose every field says what a fork does to it. See the module.
#[macro_export]
macro_rules! forkable {
    (@class inherit) => { $crate::fork::Class::Inherited };
    (@class reset) => { $crate::fork::Class::Reset };
    (@class reissue) => { $crate::fork::Class::Reissued };
    (@apply inherit $f:expr, $a:expr) => { let _ = &$f; };
    (@apply reset $f:expr, $a:expr) => { $crate::fork::Reset::reset(&mut $f, $a); };
    (@apply reissue $f:expr, $a:expr) => { $crate::fork::Reissue::reissue(&mut $f, $a); };
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$fmeta:meta])* $class:ident $fvis:vis $field:ident : $ty:ty ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        pub struct $name { $( $(#[$fmeta])* $fvis $field: $ty ),* }

        impl $name {
            /// What a fork does to each field.
            pub const FORK_CLASSES: &'static [$crate::fork::FieldClass] = &[
                $( $crate::fork::FieldClass {
                    owner: stringify!($name),
                    field: stringify!($field),
                    class: $crate::forkable!(@class $class),
                } ),*
            ];

            /// Applies the declarations in the child of a fork.
            pub fn apply_fork(&mut self, args: &$crate::fork::ForkArgs) {
                $( $crate::forkable!(@apply $class self.$field, args); )*
                let _ = args;
            }
        }
    };
}
