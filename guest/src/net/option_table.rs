//! Options that are one integer: their defaults and which values they take (socket(7), ip(7), ipv6(7), tcp(7), udp(7)).

use super::options::{
    IPV6_V6ONLY, RECEIVE_COVERAGE, SEND_COVERAGE, SO_PASSCRED, SO_REUSEADDR, SO_REUSEPORT, SOL_IP, SOL_IPV6,
    SOL_SOCKET, SOL_TCP, SOL_UDP, SOL_UDPLITE,
};

/// Which values an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Any number; kept as 0 or 1.
    Switch,
    /// Any number.
    Any,
    /// Numbers of a range, EINVAL for others.
    Range(i32, i32),
    /// As `Range`; -1 stands for the default.
    OrDefault(i32, i32),
    /// It can only be read (ENOPROTOOPT).
    ReadOnly,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// SOL_ or IPPROTO_ number.
    pub level: u32,
    /// SO_, IP_, IPV6_, TCP_ or UDP_ number.
    pub name: u32,
    /// Its value before it is set.
    pub default: i32,
    /// What it may be set to.
    pub rule: Rule,
}

const fn known(level: u32, name: u32, default: i32, rule: Rule) -> Known {
    Known { level, name, default, rule }
}

use Rule::{Any, OrDefault, Range, ReadOnly, Switch};

/// All of them.
pub(super) const KNOWN: &[Known] = &[
    known(SOL_SOCKET, 1, 0, Switch), // SO_DEBUG
    known(SOL_SOCKET, SO_REUSEADDR, 0, Switch),
    known(SOL_SOCKET, 5, 0, Switch),    // SO_DONTROUTE
    known(SOL_SOCKET, 6, 0, Switch),    // SO_BROADCAST
    known(SOL_SOCKET, 9, 0, Switch),    // SO_KEEPALIVE
    known(SOL_SOCKET, 10, 0, Switch),   // SO_OOBINLINE
    known(SOL_SOCKET, 11, 0, Switch),   // SO_NO_CHECK
    known(SOL_SOCKET, 12, 0, Any),      // SO_PRIORITY
    known(SOL_SOCKET, 19, 1, ReadOnly), // SO_SNDLOWAT
    known(SOL_SOCKET, SO_REUSEPORT, 0, Switch),
    known(SOL_SOCKET, SO_PASSCRED, 0, Switch),
    known(SOL_SOCKET, 34, 0, Switch),             // SO_PASSSEC
    known(SOL_SOCKET, 18, 1, Any),                // SO_RCVLOWAT
    known(SOL_SOCKET, 29, 0, Switch),             // SO_TIMESTAMP
    known(SOL_SOCKET, 35, 0, Switch),             // SO_TIMESTAMPNS
    known(SOL_SOCKET, 36, 0, Any),                // SO_MARK
    known(SOL_SOCKET, 40, 0, Switch),             // SO_RXQ_OVFL
    known(SOL_SOCKET, 44, 0, Switch),             // SO_LOCK_FILTER
    known(SOL_SOCKET, 45, 0, Switch),             // SO_SELECT_ERR_QUEUE
    known(SOL_SOCKET, 46, 0, Range(0, i32::MAX)), // SO_BUSY_POLL
    known(SOL_SOCKET, 49, -1, Any),               // SO_INCOMING_CPU
    known(SOL_SOCKET, 56, 0, ReadOnly),           // SO_INCOMING_NAPI_ID
    known(SOL_IP, 1, 0, Any),                     // IP_TOS
    known(SOL_IP, 2, 64, OrDefault(1, 255)),      // IP_TTL
    known(SOL_IP, 3, 0, ReadOnly),                // IP_HDRINCL
    known(SOL_IP, 6, 0, Switch),                  // IP_RECVOPTS
    known(SOL_IP, 7, 0, Switch),                  // IP_RETOPTS
    known(SOL_IP, 8, 0, Switch),                  // IP_PKTINFO
    known(SOL_IP, 10, 1, Range(0, 5)),            // IP_MTU_DISCOVER
    known(SOL_IP, 11, 0, Switch),                 // IP_RECVERR
    known(SOL_IP, 12, 0, Switch),                 // IP_RECVTTL
    known(SOL_IP, 13, 0, Switch),                 // IP_RECVTOS
    known(SOL_IP, 15, 0, Switch),                 // IP_FREEBIND
    known(SOL_IP, 18, 0, Switch),                 // IP_PASSSEC
    known(SOL_IP, 20, 0, Switch),                 // IP_RECVORIGDSTADDR
    known(SOL_IP, 21, 0, Range(0, 255)),          // IP_MINTTL
    known(SOL_IP, 24, 0, Switch),                 // IP_BIND_ADDRESS_NO_PORT
    known(SOL_IP, 33, 1, OrDefault(0, 255)),      // IP_MULTICAST_TTL
    known(SOL_IP, 34, 1, Switch),                 // IP_MULTICAST_LOOP
    known(SOL_IP, 49, 1, Range(0, 1)),            // IP_MULTICAST_ALL
    known(SOL_TCP, 1, 0, Switch),                 // TCP_NODELAY
    known(SOL_TCP, 2, 536, Any),                  // TCP_MAXSEG
    known(SOL_TCP, 3, 0, Switch),                 // TCP_CORK
    known(SOL_TCP, 4, 7200, Range(1, 32767)),     // TCP_KEEPIDLE
    known(SOL_TCP, 5, 75, Range(1, 32767)),       // TCP_KEEPINTVL
    known(SOL_TCP, 6, 9, Range(1, 127)),          // TCP_KEEPCNT
    known(SOL_TCP, 7, 6, Range(1, 127)),          // TCP_SYNCNT
    known(SOL_TCP, 8, 60, Any),                   // TCP_LINGER2
    known(SOL_TCP, 9, 0, Any),                    // TCP_DEFER_ACCEPT
    known(SOL_TCP, 10, 0, Any),                   // TCP_WINDOW_CLAMP
    known(SOL_TCP, 12, 1, Switch),                // TCP_QUICKACK
    known(SOL_TCP, 16, 0, Range(0, 1)),           // TCP_THIN_LINEAR_TIMEOUTS
    known(SOL_TCP, 17, 0, Range(0, 1)),           // TCP_THIN_DUPACK
    known(SOL_TCP, 18, 0, Range(0, i32::MAX)),    // TCP_USER_TIMEOUT
    known(SOL_TCP, 23, 0, Range(0, i32::MAX)),    // TCP_FASTOPEN
    known(SOL_TCP, 25, 0, Any),                   // TCP_NOTSENT_LOWAT
    known(SOL_TCP, 27, 0, Range(0, 2)),           // TCP_SAVE_SYN
    known(SOL_TCP, 30, 0, Range(0, 1)),           // TCP_FASTOPEN_CONNECT
    known(SOL_TCP, 36, 0, Range(0, 1)),           // TCP_INQ
    known(SOL_UDP, 1, 0, Switch),                 // UDP_CORK
    known(SOL_UDP, 101, 0, Switch),               // UDP_NO_CHECK6_TX
    known(SOL_UDP, 102, 0, Switch),               // UDP_NO_CHECK6_RX
    known(SOL_UDP, 103, 0, Range(0, 65535)),      // UDP_SEGMENT
    known(SOL_UDP, 104, 0, Switch),               // UDP_GRO
    known(SOL_UDPLITE, SEND_COVERAGE, 0, Any),
    known(SOL_UDPLITE, RECEIVE_COVERAGE, 0, Any),
    known(SOL_IPV6, 16, 64, OrDefault(0, 255)), // IPV6_UNICAST_HOPS
    known(SOL_IPV6, 18, 1, OrDefault(0, 255)),  // IPV6_MULTICAST_HOPS
    known(SOL_IPV6, 19, 1, Range(0, 1)),        // IPV6_MULTICAST_LOOP
    known(SOL_IPV6, 23, 1, Range(0, 5)),        // IPV6_MTU_DISCOVER
    known(SOL_IPV6, 25, 0, Switch),             // IPV6_RECVERR
    known(SOL_IPV6, IPV6_V6ONLY, 0, Switch),
    known(SOL_IPV6, 29, 1, Range(0, 1)),       // IPV6_MULTICAST_ALL
    known(SOL_IPV6, 49, 0, Switch),            // IPV6_RECVPKTINFO
    known(SOL_IPV6, 51, 0, Switch),            // IPV6_RECVHOPLIMIT
    known(SOL_IPV6, 62, 0, Switch),            // IPV6_DONTFRAG
    known(SOL_IPV6, 66, 0, Switch),            // IPV6_RECVTCLASS
    known(SOL_IPV6, 67, 0, OrDefault(0, 255)), // IPV6_TCLASS
    known(SOL_IPV6, 70, 1, Switch),            // IPV6_AUTOFLOWLABEL
    known(SOL_IPV6, 73, 0, Range(0, 255)),     // IPV6_MINHOPCOUNT
    known(SOL_IPV6, 78, 0, Switch),            // IPV6_FREEBIND
];

/// The option, if it is one integer.
pub(super) fn find(level: u32, name: u32) -> Option<&'static Known> {
    KNOWN.iter().find(|k| (k.level, k.name) == (level, name))
}
