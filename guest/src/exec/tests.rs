use super::*;

#[test]
fn a_script_names_an_interpreter_and_at_most_one_argument() {
    assert_eq!(
        script_line(b" /bin/sh -e -x \nrest", false),
        Ok((b"/bin/sh".to_vec(), Some(b"-e -x".to_vec())))
    );
    assert_eq!(script_line(b"/bin/sh\n", false), Ok((b"/bin/sh".to_vec(), None)));
    assert_eq!(script_line(b"  \n", false), Err(Errno::ENOEXEC));
    assert_eq!(script_line(&[b'a'; 254], true), Err(Errno::ENOEXEC));
}

use proptest::prelude::*;

const LOAD: u32 = 1;

fn parse(data: &[u8]) -> Result<Image, Errno> {
    Image::parse(&mut |offset, buf| {
        let rest = usize::try_from(offset).ok().and_then(|o| data.get(o..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    })
}

#[test]
fn a_small_program_parses() {
    let image = parse(&elf::tiny(2, &[(LOAD, 5, 0, 0x40_0000, 200, 300)])).unwrap();
    assert!(!image.dynamic);
    assert_eq!(image.phdr, 0x40_0040);
    assert_eq!(image.span(), (0x40_0000, 0x40_1000));
    assert_eq!(image.segments[0].prot, Prot::READ | Prot::EXEC);
}

#[test]
fn hostile_headers_get_linux_errors() {
    let ok = elf::tiny(2, &[(LOAD, 5, 0, 0x40_0000, 200, 300)]);
    let with = |at: usize, b: &[u8]| {
        let mut data = ok.clone();
        data[at..at + b.len()].copy_from_slice(b);
        parse(&data).map(|_| ())
    };
    assert_eq!(parse(b""), Err(Errno::ENOEXEC));
    assert_eq!(with(0, b"x"), Err(Errno::ENOEXEC));
    assert_eq!(with(4, &[1]), Err(Errno::ENOEXEC), "32-bit");
    assert_eq!(with(18, &[183]), Err(Errno::ENOEXEC), "another machine");
    assert_eq!(with(16, &[1]), Err(Errno::ENOEXEC), "an object file");
    assert_eq!(with(54, &[57]), Err(Errno::ENOEXEC), "entry size");
    assert_eq!(with(56, &[0, 0]), Err(Errno::ENOEXEC), "no program headers");
    assert_eq!(with(56, &[0xff, 0xff]), Err(Errno::ENOEXEC), "too many");
    assert_eq!(with(32, &[0xff; 8]), Err(Errno::ENOEXEC), "an offset that wraps");
    for bad in [
        (LOAD, 5, 0, 0x40_0000, 300, 200),
        (LOAD, 5, 0, 0x40_0001, 200, 300),
        (LOAD, 5, 0, !0xfff, 0, 0x2000),
        (LOAD, 5, 0, 0x40_0000, 0, u64::MAX),
        (LOAD, 5, !0xfff, 0x40_0000, 0x1000, 0x1000),
    ] {
        assert_eq!(parse(&elf::tiny(2, &[bad])).map(|_| ()), Err(Errno::EINVAL), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn mutated_headers_never_panic(changes in prop::collection::vec((0..176_usize, any::<u8>()), 1..12), kind in 2..4_u16) {
        let mut data = elf::tiny(kind, &[(LOAD, 5, 0, 0x40_0000, 176, 300), (LOAD, 6, 0, 0x40_2000, 0, 0x3000)]);
        data.resize(256, 0);
        for (at, byte) in changes {
            data[at] = byte;
        }
        if let Ok(image) = parse(&data) {
            let _ = image.span();
            let platform = std::sync::Arc::new(crate::platform::fake::FakePlatform::new(64 << 20));
            let mut k = Kernel::new(platform, crate::kernel::Limits::default()).unwrap();
            let mm = k.mm_new().unwrap();
            let free = k.frames.free_bytes();
            let _ = k.load_elf(mm, 1, &image, PIE_BASE);
            k.mm_release(mm);
            prop_assert_eq!(k.frames.free_bytes(), free);
        }
    }
}

#[test]
fn a_loaded_program_starts_on_a_valid_stack() {
    let platform = std::sync::Arc::new(crate::platform::fake::FakePlatform::new(128 << 20));
    let mut k = Kernel::new(platform, crate::kernel::Limits::default()).unwrap();
    let mm = k.mm_new().unwrap();
    test_task(&mut k, 1, mm, 0, 0);
    let image = parse(&elf::tiny(2, &[(LOAD, 6, 0, 0x40_0000, 0, 0x1800)])).unwrap();
    let argv = vec![b"prog".to_vec(), b"arg".to_vec()];
    let program = Program {
        file: 9,
        image,
        interp: None,
        path: b"/bin/prog".to_vec(),
        argv,
        creds: Creds::default(),
        secure: false,
        readable: true,
    };
    let fresh = k.mm_new().unwrap();
    let ready = k.load(fresh, &program, b"/bin/prog", &[b"A=b".to_vec()], 8 << 20).unwrap();
    assert_eq!(ready.entry, 0x40_0000);
    assert_eq!(ready.sp % 16, 0);
    k.commit(None, 1, &program, ready);
    let task = k.task(1).unwrap();
    let (sp, new) = (task.regs.rsp, task.mm);
    assert_eq!((new, task.regs.rflags, &task.name[..5]), (fresh, 0x202, &b"prog\0"[..]));
    assert!(k.mms.get(mm).is_none(), "the old address space is gone");
    assert_eq!(k.get_u64(1, sp).unwrap(), 2);
    let arg = k.get_u64(1, sp + 16).unwrap();
    assert_eq!(k.copy_in_str(1, arg, 10).unwrap(), b"arg");
    let m = k.mms.get(new).unwrap();
    assert_eq!(m.vmas.get(&0x40_0000).unwrap().end, 0x40_2000);
    assert!(m.brk_start >= 0x40_2000);
    let file = k.open_path(1, crate::abi::AT_FDCWD, b"/proc/1/cmdline", 0, 0);
    let mut text = [0; 32];
    assert_eq!(file.map(|f| k.file_read_at(f, 0, &mut text)), Ok(Ok(9)));
    assert_eq!(&text[..9], b"prog\0arg\0");
    let brk = k.brk(1, 0).unwrap();
    assert_eq!(k.brk(1, brk + 0x21000), Ok(brk + 0x21000));
}

#[test]
fn sizes_are_limited_as_execve_says() {
    assert_eq!(check_sizes(&[vec![b'a'; 131_072]], &[], 8 << 20), Err(Errno::E2BIG));
    assert_eq!(check_sizes(&[vec![b'a'; 131_071]], &[], 8 << 20), Ok(()));
    assert_eq!(check_sizes(&vec![vec![b'a'; 100_000]; 22], &[], 8 << 20), Err(Errno::E2BIG));
}

#[test]
fn a_failed_spawn_leaves_nothing_behind() {
    let platform = std::sync::Arc::new(crate::platform::fake::FakePlatform::new(128 << 20));
    let mut k = Kernel::new(platform, crate::kernel::Limits::default()).unwrap();
    let free = k.frames.free_bytes();
    let spawn = Spawn { path: b"/missing".to_vec(), argv: vec![b"x".to_vec()], ..Spawn::default() };
    assert!(k.spawn_init(&spawn, crate::vfs::Stdio::default()).is_err());
    assert!(k.tasks.is_empty() && k.processes.is_empty() && k.mms.is_empty() && k.fs_contexts.is_empty());
    assert_eq!((k.frames.free_bytes(), k.next_id), (free, 1));
}
