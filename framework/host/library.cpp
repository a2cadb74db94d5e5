// Standard paths instead of Boost.Filesystem's, as in the rest of the framework.
#define BOOST_DLL_USE_STD_FS

#include "egw/host/library.hpp"

#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/dll/shared_library.hpp>
#include <cstring>
#include <tuple>

#include "egw/host/descriptor.hpp"
#include "egw/host/elf_file.hpp"
#include "egw/host/text.hpp"
#include "egw/host/trial.hpp"

namespace egw::host {
namespace {

namespace fs = std::filesystem;
using Milliseconds = std::chrono::milliseconds;

std::string file_name(PluginKind kind, const std::string& name) {
  return "egw-" + std::string(to_string(kind)) + "-" + name + ".so";
}

// "egw-datapath-netlink.so" -> kind and name. false: not of that form.
bool parse_file_name(const std::string& file, PluginKind& kind, std::string& name) {
  if (!file.starts_with("egw-") || !file.ends_with(".so")) return false;
  const std::string middle = file.substr(4, file.size() - 7);
  const auto dash = middle.find('-');
  if (dash == std::string::npos || !parse_kind(middle.substr(0, dash), kind)) return false;
  name = middle.substr(dash + 1);
  return is_plugin_name(name);
}

// Whoever may write the file or its folder may run code as this process.
std::string check_owner(const fs::path& path, const char* noun) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) {
    return std::string("cannot be examined: ") + std::strerror(errno);
  }
  if (st.st_uid != 0 && st.st_uid != geteuid()) {
    return std::string(noun) + " belongs to user " + std::to_string(st.st_uid) +
           ", neither root nor the user that egw runs as: chown root it";
  }
  if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return std::string(noun) + " can be written by " +
           ((st.st_mode & S_IWOTH) != 0 ? "everybody" : "its group") + ": chmod go-w it";
  }
  return {};
}

// What is wrong with the file as a file, or empty. `file` becomes the resolved path.
std::string check_place(const fs::path& folder, fs::path& file) {
  std::error_code error;
  const fs::path real_folder = fs::canonical(folder, error);
  if (error) return "lies in a folder that cannot be resolved: " + error.message();
  const fs::path real_file = fs::canonical(file, error);
  if (error) return "cannot be resolved: " + error.message();
  if (real_file.parent_path() != real_folder) {
    return "is a link to " + real_file.string() +
           ", outside the plugin folder: copy the file there";
  }
  struct stat st {};
  if (stat(real_file.c_str(), &st) != 0 || !S_ISREG(st.st_mode)) {
    return "is no regular file: put a plugin library in its place";
  }
  std::string wrong = check_owner(real_file, "the file");
  if (wrong.empty()) wrong = check_owner(real_folder, "the plugin folder");
  if (wrong.empty()) file = real_file;
  return wrong;
}

PluginInfo examine(const fs::path& folder, const fs::path& file, Milliseconds patience) {
  PluginInfo info;
  info.file = file;
  PluginKind kind{};
  std::string name;
  if (!parse_file_name(file.filename().string(), kind, name)) {
    info.problem =
        "is not called egw-<statestore|leaderelection|datapath>-<name>.so with a name of a-z, 0-9 "
        "and -: rename it or take it out of the plugin folder";
    return info;
  }
  info.kind = kind;
  fs::path resolved = file;
  info.problem = check_place(folder, resolved);
  if (info.problem.empty()) info.problem = what_is_wrong_with_elf(resolved);
  if (info.problem.empty()) info.problem = try_library(resolved, kind, name, info, patience);
  if (info.name.empty() || !info.problem.empty()) info.name = name;
  return info;
}

std::string names_of(const fs::path& folder, PluginKind kind) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    PluginKind k{};
    std::string name;
    if (parse_file_name(it->path().filename().string(), k, name) && k == kind) {
      names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out.empty() ? "none" : out;
}

}  // namespace

std::vector<PluginInfo> list_libraries(const fs::path& folder, Milliseconds patience) {
  std::vector<PluginInfo> out;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".so") out.push_back(examine(folder, it->path(), patience));
  }
  if (error) {
    PluginInfo info;
    info.file = folder;
    info.problem = "the plugin folder cannot be read (" + error.message() + "): check --plugin-dir";
    out.push_back(info);
  }
  std::sort(out.begin(), out.end(), [](const PluginInfo& a, const PluginInfo& b) {
    return std::tie(a.kind, a.name, a.file) < std::tie(b.kind, b.name, b.file);
  });
  return out;
}

Result<PluginInfo> try_by_name(const fs::path& folder, PluginKind kind, const std::string& name,
                               Milliseconds patience) {
  const std::string key = config_key(kind) + ".name";
  if (!is_plugin_name(name)) {
    return fail(
        Errc::kInvalid, key,
        "\"" + plain_text(name, 64) + "\" is no plugin name: want 1 to 32 of a-z, 0-9 and -");
  }
  const fs::path file = folder / file_name(kind, name);
  std::error_code error;
  if (!fs::exists(fs::symlink_status(file, error))) {
    return fail(Errc::kNotFound, key,
                "there is no " + file.string() + "; plugins of this kind in the folder: " +
                    names_of(folder, kind) + ": check the name and --plugin-dir");
  }
  return examine(folder, file, patience);
}

Result<Library> load_library(const fs::path& folder, PluginKind kind, const std::string& name,
                             Milliseconds patience) {
  auto tried = try_by_name(folder, kind, name, patience);
  if (!tried) return tl::unexpected(tried.error());
  const std::string file = tried->file.string();
  if (!tried->problem.empty()) return fail(Errc::kInvalid, file, tried->problem);

  Library library;
  const egw_plugin_descriptor* descriptor = nullptr;
  try {
    const fs::path resolved = fs::canonical(tried->file);
    boost::dll::shared_library opened;
    opened.load(resolved, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    // Never unloaded: threads, thread-local destructors and statics of the library may outlive
    // every handle. RTLD_NODELETE holds it without a handle of ours.
    if (dlopen(resolved.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD | RTLD_NODELETE) == nullptr) {
      return fail(Errc::kInternal, file, "cannot be held in memory");
    }
    descriptor = opened.get<const egw_plugin_descriptor*()>(EGW_PLUGIN_ENTRY_SYMBOL)();
  } catch (const std::exception& e) {
    return fail(Errc::kInvalid, file,
                "cannot be opened: " + plain_text(std::string_view(e.what()), 512));
  }
  library.info.file = tried->file;
  library.info.kind = kind;
  if (const std::string wrong = read_descriptor(descriptor, kind, name, library.info);
      !wrong.empty()) {
    return fail(Errc::kInvalid, file, wrong);
  }
  library.ops = read_struct(descriptor).ops;
  return library;
}

}  // namespace egw::host
