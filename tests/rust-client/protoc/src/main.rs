//! As much of protoc as prost-build asks for (`--include_imports --include_source_info -o OUT -I DIR... FILE...`), so that crates which call
//! it build on a machine without it.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut includes, mut files, mut output) = (Vec::new(), Vec::new(), None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--include_imports" | "--include_source_info" => {}
            "-o" => output = arguments.next().map(PathBuf::from),
            "-I" => includes.extend(arguments.next().map(PathBuf::from)),
            option if option.starts_with('-') => return Err(format!("protoc: {option} is not built here").into()),
            file => files.push(PathBuf::from(file)),
        }
    }
    let mut compiler = protox::Compiler::new(includes)?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    std::fs::write(output.ok_or("protoc: -o is missing")?, compiler.encode_file_descriptor_set())?;
    Ok(())
}
