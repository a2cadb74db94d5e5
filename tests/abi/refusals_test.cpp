// Every way for a library to be wrong has a message that says which, and none harms the host.
#include <elf.h>
#include <gmock/gmock.h>

#include <fstream>

#include "abi/support.hpp"
#include "egw/abi/plugin.h"

namespace egw::host::test {
namespace {

using testing::HasSubstr;

std::string problem(Bench& bench, const std::string& name,
                    PluginKind kind = PluginKind::kDatapath) {
  const auto info = bench.host().inspect(kind, name);
  if (!info) return "NOT FOUND: " + info.error().to_string();
  // What list says of the file is the same, and opening it gives the same with the file named.
  for (const PluginInfo& other : bench.host().list()) {
    if (other.file == info->file) {
      EXPECT_EQ(other.problem, info->problem);
    }
  }
  if (kind == PluginKind::kDatapath && !info->problem.empty()) {
    const auto opened =
        bench.host().open_datapath(name, nlohmann::json::object(), bench.folder().path() / "state");
    EXPECT_FALSE(opened);
    if (!opened) {
      EXPECT_EQ(opened.error().object, info->file.string());
      EXPECT_EQ(opened.error().message, info->problem);
    }
  }
  return info->problem;
}

struct Case {
  const char* name;
  const char* message;
};

class Refused : public testing::TestWithParam<Case> {};

TEST_P(Refused, WithAMessage) {
  Bench bench(quick());
  bench.folder().add("datapath-" + std::string(GetParam().name));
  EXPECT_THAT(problem(bench, GetParam().name), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Abi, Refused,
    testing::Values(
        Case{"no-symbol", "is no egw plugin: it does not export egw_plugin_entry_v1"},
        Case{"wrong-kind", "is a statestore plugin, its file name says datapath"},
        Case{"wrong-name", "calls itself \"somebody-else\", its file name says \"wrong-name\""},
        Case{"newer-major",
             "was built for plugin ABI 2.2 and this egw speaks 1.2: install a newer"},
        Case{"older-major",
             "was built for plugin ABI 0.2 and this egw speaks 1.2: install a newer plugin"},
        Case{"unknown-required",
             "needs capabilities that this egw does not have (bits 0x10000000000)"},
        Case{"missing-op", "lacks the operations apply, observe: a datapath plugin must offer all"},
        Case{"short-ops", "lacks the operation purge:"},
        Case{"null-ops", "has no table of operations"},
        Case{"null-descriptor", "gave no descriptor"},
        Case{"small-descriptor", "has a descriptor of 24 bytes, ABI 1 needs "},
        Case{"long-version", "a descriptor whose version is 65536 bytes long (at most 256)"},
        Case{"null-text", "a descriptor whose version has a length but no text"},
        Case{"bad-schema", "has a configuration schema that is no JSON"},
        Case{"crash-in-entry", "crashed with signal 11 (SIGSEGV) in its entry egw_plugin_entry_v1"},
        Case{"abort-in-entry", "crashed with signal 6 (SIGABRT) in its entry"},
        Case{"exit-in-entry", "ended the process with exit code 7 in its entry"},
        Case{"hang-in-entry", "did not come back within 1 s in its entry"},
        Case{"crash-in-constructor", "crashed with signal 11 (SIGSEGV) while it was opened"},
        Case{"wild-pointer", "crashed with signal 11 (SIGSEGV) while its descriptor was read"},
        Case{"throws-in-entry", "threw an exception in its entry (no licence found)"},
        Case{"undefined-symbol", "egw_test_symbol_that_nobody_defines"}),
    [](const auto& test) {
      std::string name = test.param.name;
      for (char& c : name) c = c == '-' ? '_' : c;
      return name;
    });

// Changes bytes of a copy of the good library.
void patch(const fs::path& file, std::size_t offset, const std::string& bytes) {
  std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
  f.seekp(static_cast<std::streamoff>(offset));
  f << bytes;
}

TEST(Elf, IsReadBeforeAnythingRuns) {
  Bench bench(quick());
  std::ofstream(bench.folder().path() / "egw-datapath-text.so") << "#!/bin/sh\necho hello\n";
  std::ofstream(bench.folder().path() / "egw-datapath-empty.so");
  EXPECT_THAT(problem(bench, "text"), HasSubstr("is no ELF file"));
  EXPECT_THAT(problem(bench, "empty"), HasSubstr("is no ELF file"));

  const auto other = bench.folder().add("datapath-plain", "datapath-other");
  patch(other, offsetof(Elf64_Ehdr, e_machine), std::string("\xf7\x00", 2));  // EM_BPF
  EXPECT_THAT(problem(bench, "other"), HasSubstr("is built for another machine (ELF machine 247"));
  const auto small = bench.folder().add("datapath-plain", "datapath-small");
  patch(small, EI_CLASS, std::string(1, ELFCLASS32));
  EXPECT_THAT(problem(bench, "small"), HasSubstr("is not a 64-bit library"));
  const auto exec = bench.folder().add("datapath-plain", "datapath-exec");
  patch(exec, offsetof(Elf64_Ehdr, e_type), std::string("\x02\x00", 2));
  EXPECT_THAT(problem(bench, "exec"), HasSubstr("is no shared library"));
}

TEST(Elf, TruncatedAnywhere) {
  Bench bench(quick());
  const auto good = bench.folder().add("datapath-plain");
  const auto size = fs::file_size(good);
  for (const std::uintmax_t left : {size - 1, size * 3 / 4, size / 2, size / 10,
                                    std::uintmax_t{100}, std::uintmax_t{20}, std::uintmax_t{3}}) {
    fs::remove(bench.folder().path() / "egw-datapath-cut.so");
    const auto cut = bench.folder().add("datapath-plain", "datapath-cut");
    fs::resize_file(cut, left);
    EXPECT_THAT(problem(bench, "cut"),
                testing::AnyOf(HasSubstr("is truncated"), HasSubstr("is no ELF file")))
        << left;
  }
}

// Offsets and counts of the file are never believed: random damage to the headers gives a message
// or is harmless, and the process lives.
TEST(Elf, DamagedHeaders) {
  Bench bench(quick());
  bench.folder().add("datapath-no-symbol");
  const fs::path file = bench.folder().path() / "egw-datapath-no-symbol.so";
  Elf64_Ehdr header{};
  std::ifstream(file, std::ios::binary).read(reinterpret_cast<char*>(&header), sizeof(header));
  for (const std::size_t field : {offsetof(Elf64_Ehdr, e_phoff), offsetof(Elf64_Ehdr, e_shoff)}) {
    for (const std::string& value :
         {std::string(8, '\xff'), std::string("\xff\xff\xff\xff\xff\xff\xff\x7f"),
          std::string("\x01\0\0\0\0\0\0\0", 8)}) {
      fs::remove(bench.folder().path() / "egw-datapath-damaged.so");
      const auto damaged = bench.folder().add("datapath-no-symbol", "datapath-damaged");
      patch(damaged, field, value);
      EXPECT_NE(problem(bench, "damaged"), "");
    }
  }
  fs::remove(bench.folder().path() / "egw-datapath-damaged.so");
  const auto tables = bench.folder().add("datapath-no-symbol", "datapath-damaged");
  // Every section's offset, size and link made huge.
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    patch(tables, header.e_shoff + i * sizeof(Elf64_Shdr) + offsetof(Elf64_Shdr, sh_offset),
          std::string(20, '\xff'));
  }
  EXPECT_NE(problem(bench, "damaged"), "");
}

TEST(Place, WritableByOthers) {
  Bench bench;
  const auto file = bench.folder().add("datapath-plain");
  chmod(file.c_str(), 0757);
  EXPECT_THAT(problem(bench, "plain"),
              HasSubstr("the file can be written by everybody: chmod go-w"));
  chmod(file.c_str(), 0775);
  EXPECT_THAT(problem(bench, "plain"), HasSubstr("the file can be written by its group"));
  chmod(file.c_str(), 0755);
  chmod(bench.folder().path().c_str(), 0777);
  EXPECT_THAT(problem(bench, "plain"), HasSubstr("the plugin folder can be written by everybody"));
  chmod(bench.folder().path().c_str(), 0755);
  EXPECT_EQ(problem(bench, "plain"), "");
}

TEST(Place, OwnedBySomebodyElse) {
  if (geteuid() != 0) GTEST_SKIP() << "chown needs root";
  Bench bench;
  const auto file = bench.folder().add("datapath-plain");
  ASSERT_EQ(chown(file.c_str(), 12345, 0), 0);
  EXPECT_THAT(problem(bench, "plain"), HasSubstr("the file belongs to user 12345"));
}

TEST(Place, LinksOutOfTheFolder) {
  Bench bench;
  const Folder elsewhere;
  const auto outside = elsewhere.add("datapath-plain");
  fs::create_symlink(outside, bench.folder().path() / "egw-datapath-plain.so");
  EXPECT_THAT(problem(bench, "plain"), HasSubstr("is a link to " + outside.string() + ", outside"));
  fs::create_symlink("nowhere", bench.folder().path() / "egw-datapath-dangling.so");
  EXPECT_THAT(problem(bench, "dangling"), HasSubstr("cannot be resolved"));
  fs::create_directory(bench.folder().path() / "egw-datapath-folder.so");
  EXPECT_THAT(problem(bench, "folder"), HasSubstr("is no regular file"));
}

// A link within the folder is how versions are switched.
TEST(Place, LinkWithinTheFolderIsFine) {
  Bench bench;
  const auto file = bench.folder().add("datapath-plain");
  fs::rename(file, bench.folder().path() / "plain-1.2.3.bin");
  fs::create_symlink("plain-1.2.3.bin", bench.folder().path() / "egw-datapath-plain.so");
  EXPECT_EQ(problem(bench, "plain"), "");
}

TEST(Place, NotThere) {
  Bench bench;
  bench.folder().add("datapath-plain");
  const auto opened = bench.host().open_datapath("ghost", {}, bench.folder().path() / "state");
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::kNotFound);
  EXPECT_EQ(opened.error().object, "plugins.datapath.name");
  EXPECT_THAT(opened.error().message, HasSubstr("egw-datapath-ghost.so"));
  EXPECT_THAT(opened.error().message, HasSubstr("plugins of this kind in the folder: plain"));
  const auto evil = bench.host().open_state_store("../../etc/x", {}, {});
  ASSERT_FALSE(evil);
  EXPECT_THAT(evil.error().message, HasSubstr("is no plugin name"));

  PluginHost nowhere("/no/such/folder", bench.io().get_executor(), {});
  const auto listed = nowhere.list();
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_THAT(listed[0].problem, HasSubstr("the plugin folder cannot be read"));
}

TEST(List, NamesAllAndOpensNone) {
  Bench bench;
  bench.folder().add("datapath-plain");
  bench.folder().add("statestore-scripted");
  bench.folder().add("datapath-prints");
  std::ofstream(bench.folder().path() / "libother.so") << "x";
  std::ofstream(bench.folder().path() / "README.txt") << "x";
  testing::internal::CaptureStdout();
  const auto listed = bench.host().list();
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");  // the trial's child is silenced
  ASSERT_EQ(listed.size(), 4U);
  EXPECT_THAT(listed[0].problem,
              HasSubstr("is not called egw-<statestore|leaderelection|datapath>"));
  EXPECT_EQ(listed[1].name, "scripted");
  EXPECT_EQ(to_string(listed[1].kind), "statestore");
  EXPECT_EQ(listed[2].name, "plain");
  EXPECT_EQ(listed[2].version, "1.2.3");
  EXPECT_EQ(listed[2].build_tag, "C11");
  EXPECT_EQ(listed[2].abi_major, 1);
  EXPECT_EQ(listed[2].capabilities, EGW_CAP_DELTA);
  EXPECT_EQ(listed[3].name, "prints");
  EXPECT_EQ(listed[3].problem, "");
  std::ifstream maps("/proc/self/maps");
  const std::string all((std::istreambuf_iterator<char>(maps)), std::istreambuf_iterator<char>());
  EXPECT_THAT(all, testing::Not(HasSubstr(bench.folder().path().string())));
}

TEST(Config, AgainstTheSchema) {
  Bench bench;
  bench.folder().add("datapath-scripted");
  bench.folder().add("datapath-plain");
  const auto state = bench.folder().path() / "state";
  const auto error = [&](const std::string& name, const nlohmann::json& config) {
    const auto opened = bench.host().open_datapath(name, config, state);
    return opened ? std::string() : opened.error().to_string();
  };
  EXPECT_EQ(error("scripted", {{"apply", "steps"}}), "");
  EXPECT_EQ(error("scripted", nullptr), "");
  EXPECT_THAT(error("scripted", {{"apply", "fly"}}), HasSubstr("plugins.datapath.config.apply: "));
  EXPECT_THAT(error("scripted", {{"limits", {{"rules", 0}}}}),
              HasSubstr("plugins.datapath.config.limits.rules: "));
  EXPECT_THAT(error("scripted", {{"aply", "x"}}), HasSubstr("aply"));
  EXPECT_THAT(error("scripted", nlohmann::json::array()), HasSubstr("plugins.datapath.config: "));
  EXPECT_THAT(error("plain", {{"a", 1}}), HasSubstr("this plugin takes no configuration"));
}

TEST(StateDir, IsMadePrivateAndOthersAreRefused) {
  Bench bench;
  bench.folder().add("datapath-plain");
  const auto state = bench.folder().path() / "new" / "state";
  ASSERT_TRUE(bench.host().open_datapath("plain", {}, state));
  struct stat st {};
  ASSERT_EQ(stat(state.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777U, 0700U);
  chmod(state.c_str(), 0770);
  const auto open = bench.host().open_datapath("plain", {}, state);
  ASSERT_FALSE(open);
  EXPECT_THAT(open.error().message, HasSubstr("can be written by others"));
}

}  // namespace
}  // namespace egw::host::test
