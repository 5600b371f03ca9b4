//! Readiness of sockets: what poll(2) sees, and how much room there is to send.

use super::options::{SO_RCVLOWAT, SO_SELECT_ERR_QUEUE, SOL_SOCKET};
use super::{MAX_QUEUE, Socket, State};
use crate::kernel::Kernel;
use crate::num::us;

impl Kernel {
    /// Bytes that may still be sent before the other end's queue is full; 0 also where nothing can be sent.
    pub(super) fn socket_send_room(&self, s: &Socket) -> usize {
        match s.peer.and_then(|p| self.objects.net.sockets.get(p)) {
            Some(peer) => s.options.send_buffer.saturating_sub(peer.charge()),
            None => s.options.send_buffer,
        }
    }

    /// POLL* events of a socket.
    pub fn socket_poll(&self, id: u64) -> u32 {
        use crate::poll::{
            POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP, POLLRDNORM, POLLWRBAND, POLLWRNORM,
        };
        let Some(s) = self.objects.net.sockets.get(id) else { return POLLERR };
        let input = POLLIN | POLLRDNORM;
        // TCP alone has no band for what may be sent before the rest.
        let tcp = s.is_inet() && s.is_connection();
        let output = POLLOUT | POLLWRNORM | if tcp { 0 } else { POLLWRBAND };
        if let State::Listening(_) = s.state {
            return if s.ready.is_empty() { 0 } else { input };
        }
        let mut mask = if s.error.is_some() { POLLERR } else { 0 };
        if !s.errors.is_empty() {
            let also = if s.options.is_on(SOL_SOCKET, SO_SELECT_ERR_QUEUE) { POLLPRI } else { 0 };
            mask |= POLLERR | also;
        }
        if s.state == State::Connecting {
            return mask;
        }
        let reset = s.is_connection() && s.state == State::Idle;
        if (s.shut_read && s.shut_write) || reset {
            mask |= POLLHUP;
        }
        if s.shut_read {
            mask |= POLLRDHUP | input;
        }
        let least =
            if tcp { us(u64::try_from(s.options.get(SOL_SOCKET, SO_RCVLOWAT)).unwrap_or(1)) } else { 1 };
        // The urgent byte alone is no input.
        if !s.queue.is_empty() && (!tcp || s.bytes >= least.saturating_add(usize::from(s.is_at_hole()))) {
            mask |= input;
        }
        if s.has_urgent() {
            mask |= POLLPRI;
        }
        let room = self.socket_send_room(s);
        let writable = if s.is_inet() {
            s.shut_write || !s.is_connection() || room >= s.options.send_buffer / 3
        } else if s.is_connection() {
            room >= s.options.send_buffer / 4 * 3
        } else {
            s.peer.and_then(|p| self.objects.net.sockets.get(p)).is_none_or(|p| {
                p.charge() < s.options.send_buffer && (p.peer == Some(id) || p.queue.len() <= MAX_QUEUE)
            })
        };
        if writable {
            mask |= output;
        }
        mask
    }
}
