// Files in order: from the disk and from memory, and what they say of themselves.
#include "lstm_fastkernels/file.h"

#include <sys/stat.h>

#include <filesystem>

#include "check.h"
#include "folder.h"
#include "stored.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

File mapped(const std::string &path) { return File::map(path); }

void check_open_fails(const std::string &path, ErrorCode code, const std::string &why) {
  for (const auto &open : {&File::open, &mapped})
    try {
      open(path);
      CHECK(!"refused");
    } catch (const Error &error) {
      WITH("message ", error.what());
      CHECK(error.code() == code);
      CHECK(std::string(error.what()) == path + ": " + why);
    }
}

// Of an LSTM "lstm", and tensors of several types.
StoredFile model() {
  StoredFile file;
  file.add("lstm", random_stack(shape_of(7, 9, 4, 2, 2, kInt16), Weights::any, 101).held());
  file.tensors["f16"] = {"F16", {2, 2}, {0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00, 0x00, 0x7c}};
  file.tensors["bf16"] = {"BF16", {1}, {0x80, 0x3f}};
  file.tensors["empty"] = {"F32", {3, 0}, {}};
  file.tensors["f32"] = {"F32", {3}, bytes_of(std::vector<float>{1.5f, -0.0f, 1e-40f})};
  file.tensors["scalar"] = {"I64", {}, bytes_of(std::vector<int64_t>{7})};
  return file;
}

TEST(memory_that_cannot_be_is_refused) {
  const uint8_t byte = 0;
  CHECK_THROWS(File::from_memory(&byte, size_t{1} << 63),
               "memory: no memory has 9223372036854775808");
  CHECK_THROWS(File::from_memory(&byte, ~size_t{0}), "memory: no memory has");
}

TEST(a_file_on_the_disk_is_as_in_memory) {
  const Folder folder;
  const Bytes bytes = model().bytes();
  const std::string path = folder.write("a model.safetensors", bytes);
  const File opened = File::open(path), on_pages = File::map(path);
  std::filesystem::remove(path); // it was read as a whole, or is mapped
  const File file = File::from_memory(bytes.data(), bytes.size());
  CHECK(opened.name() == path && on_pages.name() == path && file.name() == "memory");
  const Sequence sequence = random_sequence(shape_of(7, 9, 4, 2, 2, kInt16), 3, 2, 102);
  for (const File &other : {opened, on_pages}) {
    CHECK(other.tensor_names() == file.tensor_names());
    for (const std::string &name : file.tensor_names()) {
      WITH("tensor ", name);
      const TensorView a = other.tensor(name), b = file.tensor(name);
      CHECK(a.bytes == b.bytes && std::memcmp(a.data, b.data, a.bytes) == 0);
    }
    for_each_isa([&](std::string_view) {
      check_same(forward(Lstm::load(other, "lstm"), sequence),
                 forward(Lstm::load(file, "lstm"), sequence));
    });
  }
}

TEST(a_copy_of_a_file_keeps_its_memory) {
  const Folder folder;
  std::vector<File> copies = {File::open(folder.write("a", model().bytes()))};
  const File copy = copies.front();
  copies.clear();
  CHECK(copy.float32("f32").size() == 3);
}

TEST(what_is_no_readable_file_is_an_io_error) {
  const Folder folder;
  check_open_fails(folder.path("nowhere"), ErrorCode::io, "No such file or directory");
  check_open_fails("", ErrorCode::io, "No such file or directory");
  check_open_fails(folder.write("file", {}) + "/file", ErrorCode::io, "Not a directory");
  check_open_fails(folder.path(), ErrorCode::io, "not a regular file");
  check_open_fails("/dev/null", ErrorCode::io, "not a regular file");
  const std::string longer = folder.path("file") + std::string("\0.safetensors", 13);
  for (const auto &open : {&File::open, &mapped})
    CHECK_THROWS(open(longer), folder.path("file") + ": a path has no zero bytes");
  CHECK(mkfifo(folder.path("fifo").c_str(), 0600) == 0); // opened, it would wait for a writer
  check_open_fails(folder.path("fifo"), ErrorCode::io, "not a regular file");
}

TEST(files_without_a_model_are_invalid_files) {
  const Folder folder;
  check_open_fails(folder.write("empty", {}), ErrorCode::invalid_file,
                   "too short for a safetensors file, 0 bytes");
  check_open_fails(folder.write("list", safetensors("[]", {})), ErrorCode::invalid_file,
                   "not a safetensors file: its header must start with '{'");
}

TEST(tensors_are_as_they_were_stored) {
  const StoredFile parts = model();
  const Bytes bytes = parts.bytes();
  const File file = File::from_memory(bytes.data(), bytes.size());
  std::vector<std::string> names;
  for (const auto &[name, stored] : parts.tensors) {
    WITH("tensor ", name);
    names.push_back(name);
    const TensorView tensor = file.tensor(name);
    CHECK(file.has_tensor(name) && tensor.name == name);
    CHECK(tensor.dtype == stored.dtype && tensor.shape == stored.shape);
    const auto *data = static_cast<const uint8_t *>(tensor.data);
    CHECK(Bytes(data, data + tensor.bytes) == stored.data);
  }
  CHECK(file.tensor_names() == names);
}

TEST(a_tensor_that_is_not_there_is_refused) {
  const Bytes bytes = model().bytes();
  const File file = File::from_memory(bytes.data(), bytes.size(), "a file");
  for (const char *name : {"", "f3", "f322", "__metadata__", "F32"}) {
    CHECK(!file.has_tensor(name));
    CHECK_THROWS(file.tensor(name), check::text("a file: ", name, " is missing"));
    CHECK_THROWS(file.float32(name), check::text("a file: ", name, " is missing"));
  }
}

TEST(floats_are_widened_at_any_alignment) {
  const float infinity = float_of(0x7f800000);
  for (size_t spaces = 0; spaces < 4; ++spaces) {
    WITH("spaces ", spaces);
    const StoredFile parts = model();
    const Bytes bytes = safetensors(parts.header() + std::string(spaces, ' '), parts.data());
    const File file = File::from_memory(bytes.data(), bytes.size(), "a file");
    CHECK_SAME(file.float32("f32"), (std::vector<float>{1.5f, -0.0f, 1e-40f}));
    CHECK_SAME(file.float32("f16"), (std::vector<float>{1.0f, -2.0f, 0x1p-24f, infinity}));
    CHECK_SAME(file.float32("bf16"), std::vector<float>{1.0f});
    CHECK(file.float32("empty").empty());
    CHECK_THROWS(file.float32("scalar"), "a file: scalar: expected F32, F16 or BF16, got I64");
  }
}

TEST(every_type_of_safetensors_has_its_size) {
  const std::pair<const char *, int64_t> types[] = {
      {"BOOL", 1},        {"U8", 1},          {"I8", 1},      {"F8_E5M2", 1}, {"F8_E4M3", 1},
      {"F8_E5M2FNUZ", 1}, {"F8_E4M3FNUZ", 1}, {"F8_E8M0", 1}, {"I16", 2},     {"U16", 2},
      {"F16", 2},         {"BF16", 2},        {"I32", 4},     {"U32", 4},     {"F32", 4},
      {"I64", 8},         {"U64", 8},         {"F64", 8},     {"C64", 8}};
  for (const auto &[dtype, size] : types) {
    WITH("dtype ", dtype);
    StoredFile parts;
    parts.tensors["a"] = {dtype, {3, 5}, Bytes(static_cast<size_t>(15 * size))};
    const Bytes bytes = safetensors("{" + parts.entry("a") + "}", parts.data());
    CHECK(File::from_memory(bytes.data(), bytes.size()).tensor("a").dtype == dtype);
    parts.tensors["a"].data.push_back(0);
    check_refused(safetensors("{" + parts.entry("a") + "}", parts.data()), "a: its shape takes ");
  }
}

TEST(metadata_is_the_writers_own) {
  const Bytes bytes = model().bytes(), none = safetensors("{}", {});
  const File file = File::from_memory(bytes.data(), bytes.size());
  CHECK((file.metadata() == std::map<std::string, std::string>{{"maker", "a test"}}));
  CHECK(File::from_memory(none.data(), none.size()).metadata().empty());
}

TEST(a_file_without_lstms_is_one_of_tensors) {
  const Bytes bytes = safetensors(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
      {7});
  const File file = File::from_memory(bytes.data(), bytes.size());
  CHECK(file.lstm_names().empty());
  CHECK(file.tensor("a").bytes == 1);
}

TEST(configurations_are_as_they_were_stored) {
  StoredFile parts = model();
  parts.add("a", random_stack(shape_of(3, 5, 0, 1, 1, kFloat32), Weights::any, 103).held());
  parts.lstms["a"]["batch_first"] = "true";
  const Bytes bytes = parts.bytes();
  const File file = File::from_memory(bytes.data(), bytes.size());
  CHECK((file.lstm_names() == std::vector<std::string>{"a", "lstm"}));
  const LstmConfiguration a = file.lstm("a"), b = file.lstm("lstm");
  CHECK(a.class_name == "FastSparseLSTM" && b.class_name == "FastQuantLSTM");
  CHECK(a.batch_first && !b.batch_first && a.bias && b.bias);
  CHECK(b.shape.input_size == 7 && b.shape.hidden_size == 9 && b.shape.proj_size == 4);
  CHECK(b.shape.num_layers == 2 && b.shape.num_directions == 2 &&
        b.precisions == std::vector<Precision>(12, kInt16));
  CHECK(a.shape.proj_size == 0 && a.shape.num_directions == 1 &&
        a.precisions == std::vector<Precision>(2, kFloat32));
  CHECK_THROWS(file.lstm("b"), "memory: no LSTM 'b', it holds 'a', 'lstm'");
}

} // namespace
} // namespace lstm_fastkernels
