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
