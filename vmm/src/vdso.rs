//! The vDSO: a small ELF shared object, built at run time, whose functions tell the time without a system call.
//!
//! Page 0 holds the ELF header and dynamic tables, page 1 the position-independent code. The code reads
//! [`guest::time::TimePage`] in the page before the image, which the guest kernel writes.

use std::arch::global_asm;

const PAGE: usize = 4096;
const NAMES: [&str; 5] =
    ["__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_getcpu", "__vdso_clock_getres"];

global_asm!(
    ".pushsection .rodata.coppice_vdso,\"a\",@progbits",
    ".balign 16",
    ".globl coppice_vdso_code",
    ".globl coppice_vdso_end",
    "coppice_vdso_code:",
    // clock_gettime(edi, rsi); slots of 256 bytes make the addresses known without symbols.
    "20: cmp edi, 7",
    "ja 27f",
    "mov r9d, 24",
    "mov eax, 0xd2",
    "bt eax, edi",
    "jc 21f",
    "mov r9d, 32",
    "mov eax, 0x21",
    "bt eax, edi",
    "jnc 27f",
    "21: lea r8, [rip + coppice_vdso_code - 0x2000]",
    "22: mov r10d, [r8]",
    "test r10b, 1",
    "jz 23f",
    "pause",
    "jmp 22b",
    "23: cmp dword ptr [r8 + 4], 1",
    "jne 27f",
    "lfence",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "sub rax, [r8 + 8]",
    "jae 24f",
    "xor eax, eax",
    "24: mov ecx, [r8 + 16]",
    "mul rcx",
    "mov ecx, [r8 + 20]",
    "shrd rax, rdx, cl",
    "add rax, [r8 + r9]",
    "cmp r10d, [r8]",
    "jne 22b",
    "xor edx, edx",
    "mov ecx, 1000000000",
    "div rcx",
    "mov [rsi], rax",
    "mov [rsi + 8], rdx",
    "xor eax, eax",
    "ret",
    "27: mov eax, 228",
    "syscall",
    "ret",
    // gettimeofday(rdi, rsi)
    ".balign 256, 0xcc",
    "test rsi, rsi",
    "jnz 28f",
    "test rdi, rdi",
    "jz 29f",
    "push rdi",
    "sub rsp, 16",
    "mov rsi, rsp",
    "xor edi, edi",
    "call 20b",
    "mov rsi, [rsp]",
    "mov rax, [rsp + 8]",
    "add rsp, 16",
    "pop rdi",
    "xor edx, edx",
    "mov ecx, 1000",
    "div rcx",
    "mov [rdi], rsi",
    "mov [rdi + 8], rax",
    "29: xor eax, eax",
    "ret",
    "28: mov eax, 96",
    "syscall",
    "ret",
    // time(rdi)
    ".balign 256, 0xcc",
    "push rdi",
    "sub rsp, 16",
    "mov rsi, rsp",
    "xor edi, edi",
    "call 20b",
    "mov rax, [rsp]",
    "add rsp, 16",
    "pop rdi",
    "test rdi, rdi",
    "jz 30f",
    "mov [rdi], rax",
    "30: ret",
    // getcpu(rdi, rsi)
    ".balign 256, 0xcc",
    "lea r8, [rip + coppice_vdso_code - 0x2000]",
    "cmp dword ptr [r8 + 40], 1",
    "jne 33f",
    "rdtscp",
    "and ecx, 0xfff",
    "test rdi, rdi",
    "jz 31f",
    "mov [rdi], ecx",
    "31: test rsi, rsi",
    "jz 32f",
    "mov dword ptr [rsi], 0",
    "32: xor eax, eax",
    "ret",
    "33: mov eax, 309",
    "syscall",
    "ret",
    // clock_getres(edi, rsi)
    ".balign 256, 0xcc",
    "mov eax, 229",
    "syscall",
    "ret",
    "coppice_vdso_end:",
    ".popsection",
);

unsafe extern "C" {
    static coppice_vdso_code: u8;
    static coppice_vdso_end: u8;
}

const SLOT: u64 = 256;

fn code() -> &'static [u8] {
    let (start, end) = (&raw const coppice_vdso_code, &raw const coppice_vdso_end);
    // SAFETY: both symbols delimit read-only bytes that the assembly above emitted in this order.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// The System V hash of a name (gABI, "Hash Table").
fn hash(name: &str) -> u32 {
    name.bytes().fold(0u32, |h, b| {
        let h = (h << 4).wrapping_add(u32::from(b));
        let top = h & 0xf000_0000;
        (h ^ top >> 24) & !top
    })
}

/// Builds the image: two pages.
pub fn image() -> Vec<u8> {
    let mut strings = vec![0u8];
    let mut add = |s: &str| {
        let at = strings.len() as u32;
        strings.extend_from_slice(s.as_bytes());
        strings.push(0);
        at
    };
    let (soname, version) = ("linux-vdso.so.1", "LINUX_2.6");
    let (soname_at, version_at) = (add(soname), add(version));
    let mut symbols = vec![0u8; 24];
    for (i, name) in NAMES.iter().enumerate() {
        symbols.extend(add(name).to_le_bytes());
        symbols.extend([0x12, 0]); // STB_GLOBAL, STT_FUNC; default visibility
        symbols.extend(1u16.to_le_bytes()); // defined, and not absolute
        symbols.extend((PAGE as u64 + i as u64 * SLOT).to_le_bytes());
        symbols.extend(SLOT.to_le_bytes());
    }
    let count = NAMES.len() as u32 + 1;
    let mut table: Vec<u8> = Vec::new();
    for word in [1, count, 1] {
        table.extend(u32::to_le_bytes(word));
    }
    for i in 0..count {
        let next = if i == 0 || i + 1 == count { 0 } else { i + 1 };
        table.extend(next.to_le_bytes());
    }
    let mut versym = 0u16.to_le_bytes().to_vec();
    versym.extend(NAMES.iter().flat_map(|_| 2u16.to_le_bytes()));
    let mut verdef = Vec::new();
    for (flags, index, name, at, next) in
        [(1u16, 1u16, soname, soname_at, 28u32), (0, 2, version, version_at, 0)]
    {
        verdef.extend([1, flags, index, 1].iter().flat_map(|x| x.to_le_bytes()));
        verdef.extend([hash(name), 20, next, at, 0].iter().flat_map(|x| x.to_le_bytes()));
    }

    let mut image = vec![0u8; 64 + 2 * 56];
    let mut place = |part: &[u8]| {
        image.resize(image.len().next_multiple_of(16), 0);
        let at = image.len() as u64;
        image.extend_from_slice(part);
        at
    };
    let (strings_at, symbols_at) = (place(&strings), place(&symbols));
    let (table_at, versym_at, verdef_at) = (place(&table), place(&versym), place(&verdef));
    let dynamic: Vec<u8> = [
        (14, u64::from(soname_at)),
        (4, table_at),
        (5, strings_at),
        (6, symbols_at),
        (10, strings.len() as u64),
        (11, 24),
        (0x6fff_fff0, versym_at),
        (0x6fff_fffc, verdef_at),
        (0x6fff_fffd, 2),
        (0, 0),
    ]
    .iter()
    .flat_map(|(tag, value): &(u64, u64)| [*tag, *value])
    .flat_map(u64::to_le_bytes)
    .collect();
    let dynamic_at = place(&dynamic);
    image.resize(PAGE, 0);
    image.extend_from_slice(code());
    let loaded = image.len() as u64;
    image.resize(2 * PAGE, 0);

    let mut head = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    head.extend([3u16, 62].iter().flat_map(|x| x.to_le_bytes())); // ET_DYN, EM_X86_64
    head.extend(1u32.to_le_bytes());
    head.extend([0u64, 64, 0].iter().flat_map(|x| x.to_le_bytes())); // no entry, program headers, no sections
    head.extend(0u32.to_le_bytes());
    head.extend([64u16, 56, 2, 64, 0, 0].iter().flat_map(|x| x.to_le_bytes()));
    for (kind, flags, at, len, align) in
        [(1u32, 5u32, 0u64, loaded, PAGE as u64), (2, 4, dynamic_at, dynamic.len() as u64, 8)]
    {
        head.extend([kind, flags].iter().flat_map(|x| x.to_le_bytes()));
        head.extend([at, at, at, len, len, align].iter().flat_map(|x| x.to_le_bytes()));
    }
    image[..head.len()].copy_from_slice(&head);
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest::time::TimePage;

    type ClockGettime = extern "C" fn(i32, *mut [i64; 2]) -> i32;

    /// Maps a time page and the image after it.
    fn load(page: &TimePage) -> usize {
        let image = image();
        // SAFETY: a fresh mapping; the copies stay inside it, and it is made executable before it is called.
        unsafe {
            let p = libc::mmap(std::ptr::null_mut(), 3 * PAGE, 3, 0x22, -1, 0).cast::<u8>();
            assert!(!p.is_null());
            p.cast::<TimePage>().write(*page);
            p.add(PAGE).copy_from_nonoverlapping(image.as_ptr(), image.len());
            assert_eq!(libc::mprotect(p.add(PAGE).cast(), 2 * PAGE, 5), 0);
            p.addr() + PAGE
        }
    }

    #[test]
    fn the_clock_functions_agree_with_the_host() {
        let khz = 2_000_000_000u128; // a made-up frequency would not agree: measure it
        let _ = khz;
        let (t0, c0) = (crate::machine::now(), crate::host::rdtsc());
        std::thread::sleep(std::time::Duration::from_millis(50));
        let (t1, c1) = (crate::machine::now(), crate::host::rdtsc());
        let mult = ((u128::from(t1 - t0) << 24) / u128::from(c1 - c0)) as u32;
        let page = TimePage {
            mode: 1,
            tsc_base: c1,
            mult,
            shift: 24,
            monotonic_base: t1,
            realtime_base: 1_700_000_000_000_000_000,
            ..TimePage::default()
        };
        let base = load(&page);
        // SAFETY: the code of clock_gettime is mapped executable there.
        let get: ClockGettime = unsafe { std::mem::transmute(base + PAGE) };
        let mut ts = [0; 2];
        for clock in [1, 4, 6, 7] {
            assert_eq!(get(clock, &mut ts), 0);
            let vdso = ts[0] as u64 * 1_000_000_000 + ts[1] as u64;
            assert!(vdso.abs_diff(crate::machine::now()) < 1_000_000, "clock {clock}: {vdso}");
        }
        assert_eq!(get(0, &mut ts), 0);
        assert_eq!(ts[0], 1_700_000_000);
        assert_eq!(get(2, &mut ts), 0, "other clocks are a system call");
        assert!(ts[0] < 100_000);
    }

    #[test]
    fn without_a_counter_the_functions_make_the_system_call() {
        let base = load(&TimePage::default());
        // SAFETY: as above.
        let get: ClockGettime = unsafe { std::mem::transmute(base + PAGE) };
        let mut ts = [0; 2];
        assert_eq!(get(1, &mut ts), 0);
        let vdso = ts[0] as u64 * 1_000_000_000 + ts[1] as u64;
        assert!(vdso.abs_diff(crate::machine::now()) < 10_000_000);
    }

    #[test]
    fn the_image_is_two_pages_and_its_code_fits() {
        let image = image();
        assert_eq!(image.len(), 2 * PAGE);
        assert!(code().len() <= PAGE);
        assert_eq!(image[PAGE..PAGE + code().len()], *code());
        assert!(code().len() > 4 * SLOT as usize);
    }
}
