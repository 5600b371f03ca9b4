//! What /proc/net, /proc/sys/net and /sys/class/net say (proc(5), proc_pid_net(5), proc_sys_net(5)).

use super::addr::{Address, Family};
use super::{MAX_BACKLOG, MAX_QUEUE, Socket, State, Style};
use crate::kernel::Kernel;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Files of /proc/PID/net.
pub const FILES: &[&str] = &[
    "arp",
    "dev",
    "dev_mcast",
    "fib_trie",
    "icmp",
    "if_inet6",
    "igmp",
    "igmp6",
    "ipv6_route",
    "netlink",
    "netstat",
    "packet",
    "protocols",
    "raw",
    "raw6",
    "route",
    "snmp",
    "snmp6",
    "sockstat",
    "sockstat6",
    "tcp",
    "tcp6",
    "udp",
    "udp6",
    "udplite",
    "unix",
];

/// Files with a fixed text, and the directories (trailing slash) that hold them.
pub const FIXED: &[(&str, &str)] = &[
    ("proc/sys/net/", ""),
    ("proc/sys/net/core/", ""),
    ("proc/sys/net/core/default_qdisc", "pfifo_fast\n"),
    ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
    ("proc/sys/net/core/optmem_max", "131072\n"),
    ("proc/sys/net/core/rmem_default", "212992\n"),
    ("proc/sys/net/core/rmem_max", "212992\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/core/wmem_default", "212992\n"),
    ("proc/sys/net/core/wmem_max", "212992\n"),
    ("proc/sys/net/ipv4/", ""),
    ("proc/sys/net/ipv4/ip_default_ttl", "64\n"),
    ("proc/sys/net/ipv4/ip_forward", "0\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n"),
    ("proc/sys/net/ipv4/ping_group_range", "1\t0\n"),
    ("proc/sys/net/ipv4/tcp_available_congestion_control", "reno cubic\n"),
    ("proc/sys/net/ipv4/tcp_congestion_control", "cubic\n"),
    ("proc/sys/net/ipv4/tcp_fin_timeout", "60\n"),
    ("proc/sys/net/ipv4/tcp_keepalive_intvl", "75\n"),
    ("proc/sys/net/ipv4/tcp_keepalive_probes", "9\n"),
    ("proc/sys/net/ipv4/tcp_keepalive_time", "7200\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
    ("proc/sys/net/ipv4/tcp_syn_retries", "6\n"),
    ("proc/sys/net/ipv4/tcp_timestamps", "1\n"),
    ("proc/sys/net/ipv4/tcp_tw_reuse", "2\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
    ("proc/sys/net/ipv6/", ""),
    ("proc/sys/net/ipv6/bindv6only", "0\n"),
    ("proc/sys/net/ipv6/conf/", ""),
    ("proc/sys/net/ipv6/conf/all/", ""),
    ("proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n"),
    ("proc/sys/net/ipv6/conf/default/", ""),
    ("proc/sys/net/ipv6/conf/default/disable_ipv6", "0\n"),
    ("proc/sys/net/ipv6/conf/lo/", ""),
    ("proc/sys/net/ipv6/conf/lo/disable_ipv6", "0\n"),
    ("proc/sys/net/unix/", ""),
    ("proc/sys/net/unix/max_dgram_qlen", "10\n"),
    ("sys/class/", ""),
    ("sys/class/net/", ""),
    ("sys/class/net/lo/", ""),
    ("sys/class/net/lo/addr_len", "6\n"),
    ("sys/class/net/lo/address", "00:00:00:00:00:00\n"),
    ("sys/class/net/lo/broadcast", "00:00:00:00:00:00\n"),
    ("sys/class/net/lo/carrier", "1\n"),
    ("sys/class/net/lo/dev_id", "0x0\n"),
    ("sys/class/net/lo/flags", "0x9\n"),
    ("sys/class/net/lo/ifindex", "1\n"),
    ("sys/class/net/lo/iflink", "1\n"),
    ("sys/class/net/lo/link_mode", "0\n"),
    ("sys/class/net/lo/mtu", "65536\n"),
    ("sys/class/net/lo/operstate", "unknown\n"),
    ("sys/class/net/lo/statistics/", ""),
    ("sys/class/net/lo/statistics/rx_bytes", "0\n"),
    ("sys/class/net/lo/statistics/rx_dropped", "0\n"),
    ("sys/class/net/lo/statistics/rx_errors", "0\n"),
    ("sys/class/net/lo/statistics/rx_packets", "0\n"),
    ("sys/class/net/lo/statistics/tx_bytes", "0\n"),
    ("sys/class/net/lo/statistics/tx_dropped", "0\n"),
    ("sys/class/net/lo/statistics/tx_errors", "0\n"),
    ("sys/class/net/lo/statistics/tx_packets", "0\n"),
    ("sys/class/net/lo/tx_queue_len", "1000\n"),
    ("sys/class/net/lo/type", "772\n"),
];

const _: () = assert!(MAX_BACKLOG == 4096 && MAX_QUEUE == 10);

const INET_HEAD: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const INET6_HEAD: &str = "  sl  local_address                         remote_address                        st \
                          tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
 lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n";
const SNMP: &[(&str, &str)] = &[
    (
        "Ip",
        "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers \
         OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates",
    ),
    ("Icmp", "InMsgs InErrors InCsumErrors InDestUnreachs OutMsgs OutErrors OutDestUnreachs"),
    (
        "Tcp",
        "RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs \
         RetransSegs InErrs OutRsts InCsumErrors",
    ),
    ("Udp", "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti"),
];

/// The text of a file of [`FIXED`].
pub fn fixed_text(path: &str) -> Option<&'static str> {
    FIXED.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

/// An address and port in the form of /proc/net/tcp (words as the machine has them, in hexadecimal) for a table of the family.
fn hex(address: &Address, v6: bool) -> String {
    let (octets, port) = match address {
        Address::Ip(IpAddr::V4(ip), port) if v6 => (ip.to_ipv6_mapped().octets().to_vec(), *port),
        Address::Ip(IpAddr::V4(ip), port) => (ip.octets().to_vec(), *port),
        Address::Ip(IpAddr::V6(ip), port) => (ip.octets().to_vec(), *port),
        _ => (vec![0; if v6 { 16 } else { 4 }], 0),
    };
    let mut text = String::new();
    for word in octets.chunks_exact(4) {
        let word = word.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
        let _ = write!(text, "{word:08X}");
    }
    let _ = write!(text, ":{port:04X}");
    text
}

fn zeros(names: &str) -> String {
    names.split(' ').map(|_| " 0").collect()
}

impl Kernel {
    fn unread_by_peer(&self, s: &Socket) -> usize {
        let peer = s.peer.filter(|_| s.is_connection());
        peer.and_then(|p| self.objects.net.sockets.get(p)).map_or(0, |p| p.bytes)
    }

    fn inet_table(&self, family: Family, style: Style) -> String {
        let (v6, stream) = (family == Family::Inet6, style == Style::Stream);
        let mut text = format!("{}\n", if v6 { INET6_HEAD } else { INET_HEAD });
        let wanted = |s: &Socket| {
            let used = s.local.port() != 0 && !(stream && s.state == State::Idle);
            s.family == family && s.style == style && used
        };
        let all = self.objects.net.sockets.iter().filter(|(_, s)| wanted(s));
        for (n, (id, s)) in (0u64..).zip(all) {
            let state = match (stream, s.state) {
                (true, _) => self.tcp_state(s),
                (false, State::Connected) => 1,
                (false, _) => 7,
            };
            let received = if let State::Listening(_) = s.state { s.ready.len() } else { s.bytes };
            let _ = writeln!(
                text,
                "{n:4}: {} {} {state:02X} {:08X}:{received:08X} 00:00000000 00000000 {:5}        0 {id} 1 0000000000000000 100 0 0 10 0",
                hex(&s.local, v6),
                hex(&s.remote, v6),
                self.unread_by_peer(s),
                s.cred.uid,
            );
        }
        text
    }

    fn unix_table(&self) -> String {
        let mut text = "Num       RefCount Protocol Flags    Type St Inode Path\n".to_owned();
        for (id, s) in self.objects.net.sockets.iter().filter(|(_, s)| s.family == Family::Unix) {
            let (flags, state) = match s.state {
                State::Listening(_) => (0x10000, 1),
                State::Connected => (0, 3),
                _ => (0, 1),
            };
            let name = match &s.local {
                Address::Path(path) => format!(" {}", String::from_utf8_lossy(path)),
                // NULs are shown as @, the first among them.
                Address::Abstract(name) => {
                    format!(" @{}", String::from_utf8_lossy(name).replace('\0', "@"))
                }
                _ => String::new(),
            };
            let _ = writeln!(
                text,
                "0000000000000000: 00000002 00000000 {flags:08X} {:04X} {state:02X} {id:5}{name}",
                s.style.number()
            );
        }
        text
    }

    fn netlink_table(&self) -> String {
        let mut text =
            "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"
                .to_owned();
        for (id, s) in self.objects.net.sockets.iter() {
            if let (Family::Netlink, Address::Netlink(pid, groups)) = (s.family, &s.local) {
                let _ = writeln!(
                    text,
                    "0000000000000000 0   {pid:<10} {groups:08x} {:<8} 0        0     2        0        {id:<8}",
                    s.bytes
                );
            }
        }
        text
    }

    fn count(&self, wanted: impl Fn(&Socket) -> bool) -> usize {
        self.objects.net.sockets.iter().filter(|(_, s)| wanted(s)).count()
    }

    fn sockstat(&self) -> String {
        let kind = |style: Style| self.count(|s| s.family == Family::Inet && s.style == style);
        format!(
            "sockets: used {}\nTCP: inuse {} orphan 0 tw 0 alloc {} mem 0\nUDP: inuse {} mem 0\nUDPLITE: inuse 0\n\
             RAW: inuse 0\nFRAG: inuse 0 memory 0\n",
            self.objects.net.sockets.len(),
            kind(Style::Stream),
            kind(Style::Stream),
            kind(Style::Datagram),
        )
    }

    fn protocols(&self) -> String {
        let mut text =
            "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se \
                        re bi br ha uh gp em\n"
                .to_owned();
        for (name, family, style) in [
            ("NETLINK", Family::Netlink, Style::Raw),
            ("UNIX-STREAM", Family::Unix, Style::Stream),
            ("UNIX", Family::Unix, Style::Datagram),
            ("TCPv6", Family::Inet6, Style::Stream),
            ("UDPv6", Family::Inet6, Style::Datagram),
            ("TCP", Family::Inet, Style::Stream),
            ("UDP", Family::Inet, Style::Datagram),
        ] {
            let n = self.count(|s| s.family == family && s.style == style);
            let _ = writeln!(
                text,
                "{name:<11}1024 {n:6}      -1   NI       0   no   kernel      n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n"
            );
        }
        text
    }

    /// What a file of /proc/PID/net says; `None` for a name that is none of [`FILES`].
    pub fn net_text(&self, name: &str) -> Option<String> {
        Some(match name {
            "tcp" => self.inet_table(Family::Inet, Style::Stream),
            "tcp6" => self.inet_table(Family::Inet6, Style::Stream),
            "udp" => self.inet_table(Family::Inet, Style::Datagram),
            "udp6" => self.inet_table(Family::Inet6, Style::Datagram),
            "raw" | "icmp" | "udplite" => format!("{INET_HEAD} ref pointer drops\n"),
            "raw6" => format!("{INET6_HEAD} ref pointer drops\n"),
            "unix" => self.unix_table(),
            "netlink" => self.netlink_table(),
            "sockstat" => self.sockstat(),
            "sockstat6" => format!(
                "TCP6: inuse {}\nUDP6: inuse {}\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n",
                self.count(|s| s.family == Family::Inet6 && s.style == Style::Stream),
                self.count(|s| s.family == Family::Inet6 && s.style == Style::Datagram),
            ),
            "protocols" => self.protocols(),
            "dev" => DEV.to_owned(),
            "route" => {
                format!("{:<127}\n", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT")
            }
            "if_inet6" => "00000000000000000000000000000001 01 80 10 80       lo\n".to_owned(),
            "ipv6_route" => "00000000000000000000000000000001 80 00000000000000000000000000000000 00 \
                             00000000000000000000000000000000 00000100 00000001 00000000 00000001       lo\n"
                .to_owned(),
            "snmp" => SNMP.iter().fold(String::new(), |mut text, (name, fields)| {
                let _ = writeln!(text, "{name}: {fields}\n{name}:{}", zeros(fields));
                text
            }),
            "netstat" => "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 0 0\n\
                          IpExt: InOctets OutOctets\nIpExt: 0 0\n"
                .to_owned(),
            "arp" => "IP address       HW type     Flags       HW address            Mask     Device\n".to_owned(),
            "packet" => "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n".to_owned(),
            "igmp" => "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        :     1      V3\n\
                       \t\t\t\t010000E0     1 0:00000000\t\t0\n"
                .to_owned(),
            "fib_trie" => "Local:\n  +-- 127.0.0.0/8 2 0 2\n     |-- 127.0.0.0\n        /8 host LOCAL\n     |-- 127.0.0.1\n\
                           \x20       /32 host LOCAL\n     |-- 127.255.255.255\n        /32 link BROADCAST\n"
                .to_owned(),
            "snmp6" | "dev_mcast" | "igmp6" => String::new(),
            _ => return None,
        })
    }
}
