//! Sockets of the kernel's own: ends of connections that no task has a file for.

use super::Message;
use super::addr::Address;
use crate::errno::Errno;
use crate::kernel::Kernel;

impl Kernel {
    /// Takes `n` bytes of the oldest message of a stream, and wakes its sender where it has room now. Files that came with it are closed.
    pub(crate) fn socket_take(&mut self, id: u64, n: usize) {
        for file in self.consume_message(id, n, false) {
            self.file_unref(file);
        }
    }

    /// Sends bytes on a stream, as many as there is room for; how many. EPIPE when nobody reads.
    pub(crate) fn socket_put(&mut self, id: u64, mut data: Vec<u8>) -> Result<usize, Errno> {
        let s = self.objects.net.get(id)?;
        let peer = s.peer.filter(|_| !s.shut_write).ok_or(Errno::EPIPE)?;
        data.truncate(self.socket_send_room(s));
        let n = data.len();
        if n > 0 {
            self.objects.net.admit(n, 0)?;
            let cred = self.socket_cred(0);
            let (from, files) = (Address::Unnamed, Vec::new());
            let message = Message { data, start: 0, from, sender: None, cred, files, stamp: 0, packet: None };
            self.objects.net.enqueue(peer, message, true);
            self.socket_wake(peer);
        }
        Ok(n)
    }

    /// Ends a connection.
    pub(crate) fn socket_drop(&mut self, id: u64) {
        self.socket_close(id);
    }
}
