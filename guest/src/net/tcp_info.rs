//! States of TCP sockets as Linux numbers them, and `struct tcp_info`.

use super::{Socket, State};
use crate::kernel::Kernel;
use crate::num::{low32, u64_of};

/// `sizeof(struct tcp_info)` of Linux 5.5, whose fields later kernels only add to.
const LENGTH: usize = 232;

impl Kernel {
    /// The number of a socket's TCP state (`TCP_ESTABLISHED` is 1).
    pub(super) fn tcp_state(&self, s: &Socket) -> u8 {
        match s.state {
            State::Listening(_) => 10,
            State::Connecting => 2,
            State::Idle => 7,
            State::Connected => {
                let Some(peer) = s.peer.and_then(|p| self.objects.net.sockets.get(p)) else {
                    // The other end has closed.
                    return if !s.is_connection() || !s.shut_read {
                        1
                    } else if s.shut_write {
                        7
                    } else {
                        8
                    };
                };
                match (s.shut_write, peer.shut_write) {
                    (false, false) => 1,
                    (false, true) => 8,
                    (true, false) => 5,
                    (true, true) => 7,
                }
            }
        }
    }

    /// TCP_INFO: the state, and figures of a connection that loses nothing and has no delay.
    pub fn tcp_info(&self, s: &Socket) -> Vec<u8> {
        let mut out = vec![self.tcp_state(s), 0, 0, 0, 0, 0, 0x77, 0];
        let unread = s.peer.and_then(|p| self.objects.net.sockets.get(p)).map_or(0, |p| p.bytes);
        let words: [u32; 24] = [
            200_000, // rto, us
            40_000,  // ato, us
            32768,   // snd_mss
            32768,   // rcv_mss
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            65536, // pmtu
            65483, // rcv_ssthresh
            50,    // rtt, us
            25,    // rttvar, us
            0x7fff_ffff,
            10,    // snd_cwnd
            65483, // advmss
            3,     // reordering
            0,
            65483, // rcv_space
            0,
        ];
        for word in words {
            out.extend(word.to_le_bytes());
        }
        out.resize(LENGTH, 0);
        // tcpi_notsent_bytes
        if let Some(field) = out.get_mut(144..148) {
            field.copy_from_slice(&low32(u64_of(unread)).to_le_bytes());
        }
        out
    }
}
