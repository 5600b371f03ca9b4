set -e
here=$(dirname "$0")
javac -Xlint:all -d out "$here/Hello.java" "$here/Work.java"
cd out; sha256sum *.class
