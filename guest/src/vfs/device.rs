//! Character devices that need no state: null(4), zero, full(4), random(4).

use super::Device;
use crate::errno::Errno;
use crate::kernel::Kernel;

impl Kernel {
    /// Reads from a device.
    pub fn device_read(&mut self, device: Device, buf: &mut [u8]) -> Result<usize, Errno> {
        match device {
            Device::Null => return Ok(0),
            Device::Zero | Device::Full => buf.fill(0),
            Device::Random | Device::Urandom => self.entropy.fill(buf),
            Device::Tty | Device::Ptmx | Device::Pts(_) => return Err(Errno::EIO),
        }
        Ok(buf.len())
    }

    /// Writes to a device. Bytes written to the random devices are dropped: the guest's generator needs no help.
    pub fn device_write(&mut self, device: Device, len: usize) -> Result<usize, Errno> {
        match device {
            Device::Full => Err(Errno::ENOSPC),
            Device::Tty | Device::Ptmx | Device::Pts(_) => Err(Errno::EIO),
            _ => Ok(len),
        }
    }
}
