//! Birth of tasks: clone(2), clone3(2), fork(2), vfork(2).
