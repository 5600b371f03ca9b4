//! ELF64 images of x86-64: parsing (hostile headers) and mapping of their segments.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mm::mmap::MapRequest;
use crate::mm::{Backing, Prot};
use crate::num::{align_down, align_up, u64_of, us};
use crate::platform::{PAGE_SIZE, TASK_SIZE, Va};

const ET_EXEC: u64 = 2;
const ET_DYN: u64 = 3;
const EM_X86_64: u64 = 62;
const PT_LOAD: u64 = 1;
const PT_INTERP: u64 = 3;
const PT_PHDR: u64 = 6;
const PT_GNU_STACK: u64 = 0x6474_e551;
const PF_X: u64 = 1;
const PF_W: u64 = 2;
const PF_R: u64 = 4;
/// Bytes of one program header.
pub const PHENT: u64 = 56;
/// Bytes that program headers may have together.
const PH_MAX: u64 = 65_536;

/// Fills a buffer from an offset of an image; returns how much there was.
pub type Reader<'a> = dyn FnMut(u64, &mut [u8]) -> Result<usize, Errno> + 'a;

/// A loadable segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// p_vaddr.
    pub vaddr: Va,
    /// p_offset.
    pub offset: u64,
    /// p_filesz.
    pub filesz: u64,
    /// p_memsz.
    pub memsz: u64,
    /// p_flags as a protection.
    pub prot: Prot,
}

/// A parsed image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Position independent (ET_DYN).
    pub dynamic: bool,
    /// e_entry.
    pub entry: Va,
    /// Number of program headers.
    pub phnum: u64,
    /// Where the program headers are when loaded, relative to the load bias.
    pub phdr: Va,
    /// Loadable segments in file order.
    pub segments: Vec<Segment>,
    /// The interpreter's path.
    pub interp: Option<Vec<u8>>,
    /// PT_GNU_STACK asks for an executable stack.
    pub exec_stack: bool,
}

/// Where an image was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What was added to its addresses.
    pub bias: u64,
    /// First byte in memory.
    pub start: Va,
    /// First page after its last segment.
    pub end: Va,
    /// First and last address of its code.
    pub code: (Va, Va),
}

/// `n` bytes at `at` as a little-endian number; ENOEXEC when they are not there.
fn number(data: &[u8], at: usize, n: usize) -> Result<u64, Errno> {
    let bytes = at.checked_add(n).and_then(|end| data.get(at..end)).ok_or(Errno::ENOEXEC)?;
    Ok(bytes.iter().rev().fold(0, |x, b| (x << 8) | u64::from(*b)))
}

impl Image {
    /// Parses an image through `read`, which fills a buffer from an offset and returns how much there was.
    /// ENOEXEC when it is not an x86-64 program; EINVAL for segments that no address space can hold.
    pub fn parse(read: &mut Reader<'_>) -> Result<Image, Errno> {
        let mut head = [0; 64];
        if read_full(read, 0, &mut head)? != head.len() {
            return Err(Errno::ENOEXEC);
        }
        // Magic, 64-bit, little endian.
        if head.get(..6) != Some(b"\x7fELF\x02\x01") {
            return Err(Errno::ENOEXEC);
        }
        let kind = number(&head, 16, 2)?;
        let (phoff, phnum) = (number(&head, 32, 8)?, number(&head, 56, 2)?);
        let size = phnum * PHENT;
        if !(kind == ET_EXEC || kind == ET_DYN)
            || number(&head, 18, 2)? != EM_X86_64
            || number(&head, 54, 2)? != PHENT
            || size == 0
            || size > PH_MAX
        {
            return Err(Errno::ENOEXEC);
        }
        let mut table = vec![0; us(size)];
        if read_full(read, phoff, &mut table)? != table.len() {
            return Err(Errno::ENOEXEC);
        }
        let mut image = Image {
            dynamic: kind == ET_DYN,
            entry: number(&head, 24, 8)?,
            phnum,
            phdr: 0,
            segments: Vec::new(),
            interp: None,
            exec_stack: false,
        };
        let mut named_phdr = None;
        for ph in table.chunks_exact(us(PHENT)) {
            let (offset, vaddr) = (number(ph, 8, 8)?, number(ph, 16, 8)?);
            let (filesz, memsz) = (number(ph, 32, 8)?, number(ph, 40, 8)?);
            let flags = number(ph, 4, 4)?;
            match number(ph, 0, 4)? {
                PT_LOAD => image.segments.push(segment(vaddr, offset, filesz, memsz, flags)?),
                PT_INTERP if image.interp.is_none() => image.interp = Some(interp(read, offset, filesz)?),
                PT_PHDR => named_phdr = Some(vaddr),
                PT_GNU_STACK => image.exec_stack = flags & PF_X != 0,
                _ => {}
            }
        }
        if image.segments.is_empty() {
            return Err(Errno::EINVAL);
        }
        let holder = image.segments.iter().find(|s| s.offset <= phoff && phoff - s.offset < s.filesz);
        let found = holder.map(|s| s.vaddr.wrapping_add(phoff - s.offset));
        image.phdr = found.or(named_phdr).unwrap_or(0);
        Ok(image)
    }

    /// First page and first page after the last, before the bias.
    pub fn span(&self) -> (Va, Va) {
        let start = self.segments.iter().map(|s| align_down(s.vaddr, PAGE_SIZE)).min().unwrap_or(0);
        let end = self.segments.iter().map(Segment::end).max().unwrap_or(0);
        (start, end)
    }
}

impl Segment {
    /// First page after it.
    fn end(&self) -> Va {
        align_up(self.vaddr.saturating_add(self.memsz), PAGE_SIZE).unwrap_or(TASK_SIZE)
    }
}

fn read_full(read: &mut Reader<'_>, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        let at = offset.checked_add(u64_of(done)).filter(|a| *a <= i64::MAX.cast_unsigned());
        match read(at.ok_or(Errno::ENOEXEC)?, rest)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

fn segment(vaddr: Va, offset: u64, filesz: u64, memsz: u64, flags: u64) -> Result<Segment, Errno> {
    let fits = |base: u64, len: u64| base.checked_add(len).is_some_and(|end| end <= TASK_SIZE);
    if filesz > memsz
        || !fits(vaddr, memsz)
        || offset.checked_add(filesz).is_none_or(|end| end > i64::MAX.cast_unsigned())
        || vaddr % PAGE_SIZE != offset % PAGE_SIZE
    {
        return Err(Errno::EINVAL);
    }
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags & PF_R != 0);
    prot.set(Prot::WRITE, flags & PF_W != 0);
    prot.set(Prot::EXEC, flags & PF_X != 0);
    Ok(Segment { vaddr, offset, filesz, memsz, prot })
}

fn interp(read: &mut Reader<'_>, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
    if !(2..=u64_of(crate::abi::PATH_MAX)).contains(&len) {
        return Err(Errno::ENOEXEC);
    }
    let mut path = vec![0; us(len)];
    if read_full(read, offset, &mut path)? != path.len() {
        return Err(Errno::EIO);
    }
    if path.pop() != Some(0) {
        return Err(Errno::ENOEXEC);
    }
    // The path ends at its first NUL.
    Ok(path.split(|b| *b == 0).next().unwrap_or_default().to_vec())
}

impl Kernel {
    /// Parses the image in an open file.
    pub(super) fn parse_elf(&mut self, file: u64) -> Result<Image, Errno> {
        Image::parse(&mut |offset, buf| self.file_read_at(file, offset, buf))
    }

    /// Maps an image's segments. `base` is where its first page goes when it is position independent.
    pub(super) fn load_elf(&mut self, mm: u64, file: u64, image: &Image, base: Va) -> Result<Loaded, Errno> {
        let (first, last) = image.span();
        let bias = if image.dynamic { base.wrapping_sub(first) } else { 0 };
        let at = |va: Va| va.wrapping_add(bias);
        let mut loaded = Loaded { bias, start: at(first), end: at(last), code: (0, 0) };
        if loaded.end < loaded.start || loaded.end > TASK_SIZE {
            return Err(Errno::ENOMEM);
        }
        for s in &image.segments {
            let page = align_down(at(s.vaddr), PAGE_SIZE);
            let lead = s.vaddr % PAGE_SIZE;
            let file_end = at(s.vaddr) + s.filesz;
            let mem_end = at(s.vaddr) + s.memsz;
            let mut next = page;
            if s.filesz > 0 {
                let len = align_up(s.filesz + lead, PAGE_SIZE).ok_or(Errno::EINVAL)?;
                let mut request = MapRequest::anon(page, len, s.prot, true);
                request.backing = Backing::File { file, offset: s.offset - lead };
                self.mm_map(mm, request)?;
                next = page + len;
                if s.memsz > s.filesz && s.prot.contains(Prot::WRITE) {
                    // Nothing is zeroed where a lying p_filesz reaches beyond the end of the file.
                    let tail = vec![0; us(next - file_end)];
                    let _ = self.mm_write_partial(mm, file_end, &tail);
                }
            }
            let end = align_up(mem_end, PAGE_SIZE).ok_or(Errno::EINVAL)?;
            if end > next {
                self.mm_map(mm, MapRequest::anon(next, end - next, s.prot, true))?;
            }
            if s.prot.contains(Prot::EXEC) && loaded.code.0 == 0 {
                loaded.code = (at(s.vaddr), file_end);
            }
        }
        Ok(loaded)
    }
}

/// A small image: (type, flags, offset, vaddr, filesz, memsz) per program header.
#[cfg(test)]
pub(super) fn tiny(kind: u16, segments: &[(u32, u32, u64, u64, u64, u64)]) -> Vec<u8> {
    let mut out = vec![0; 64];
    out[..6].copy_from_slice(b"\x7fELF\x02\x01");
    out[16..18].copy_from_slice(&kind.to_le_bytes());
    out[18..20].copy_from_slice(&62_u16.to_le_bytes());
    out[24..32].copy_from_slice(&segments[0].3.to_le_bytes());
    out[32..40].copy_from_slice(&64_u64.to_le_bytes());
    out[54..56].copy_from_slice(&56_u16.to_le_bytes());
    out[56..58].copy_from_slice(&u16::try_from(segments.len()).unwrap().to_le_bytes());
    for (kind, flags, offset, vaddr, filesz, memsz) in segments {
        out.extend(kind.to_le_bytes());
        out.extend(flags.to_le_bytes());
        for x in [*offset, *vaddr, *vaddr, *filesz, *memsz, 4096] {
            out.extend(x.to_le_bytes());
        }
    }
    out
}
