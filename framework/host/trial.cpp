#include "egw/host/trial.hpp"

#include <dlfcn.h>

#include "egw/host/descriptor.hpp"
#include "egw/host/forked.hpp"
#include "egw/host/text.hpp"

namespace egw::host {
namespace {

// What the child sends: one byte per stage that it enters; after kAnswer a JSON document up to the
// end of the stream.
enum Stage : char { kOpening = 'o', kEntry = 'e', kDescriptor = 'd', kAnswer = 'a' };

const char* doing(char stage) {
  switch (stage) {
    case kEntry:
      return "in its entry " EGW_PLUGIN_ENTRY_SYMBOL;
    case kDescriptor:
      return "while its descriptor was read";
    default:
      return "while it was opened";
  }
}

void send_stage(int fd, Stage stage) {
  const char byte = stage;
  send_to_parent(fd, {&byte, 1});
}

// What is wrong with the library, or empty.
std::string examine(int out, const std::filesystem::path& file, PluginKind kind,
                    const std::string& name, PluginInfo& info) {
  send_stage(out, kOpening);
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return "cannot be opened: " + plain_text(std::string_view(dlerror()), 512);
  }
  const auto entry = reinterpret_cast<egw_plugin_entry_fn>(dlsym(library, EGW_PLUGIN_ENTRY_SYMBOL));
  if (entry == nullptr) return "is no egw plugin: it does not export " EGW_PLUGIN_ENTRY_SYMBOL;
  send_stage(out, kEntry);
  try {
    const egw_plugin_descriptor* descriptor = entry();
    send_stage(out, kDescriptor);
    return read_descriptor(descriptor, kind, name, info);
  } catch (const std::exception& e) {
    return "threw an exception in its entry (" + plain_text(std::string_view(e.what()), 512) +
           "): correct the plugin";
  } catch (...) {
    return "threw an exception in its entry: correct the plugin";
  }
}

void child(int out, const std::filesystem::path& file, PluginKind kind, const std::string& name) {
  PluginInfo info;
  const std::string wrong = examine(out, file, kind, name, info);
  const nlohmann::json answer = {{"wrong", wrong},
                                 {"name", info.name},
                                 {"version", info.version},
                                 {"buildTag", info.build_tag},
                                 {"schema", info.config_schema},
                                 {"layout", info.layout},
                                 {"major", info.abi_major},
                                 {"minor", info.abi_minor},
                                 {"capabilities", info.capabilities}};
  const std::string text = answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  send_stage(out, kAnswer);
  send_to_parent(out, text);
}

std::string read_answer(const std::string& text, PluginInfo& info) {
  const auto j = nlohmann::json::parse(text, nullptr, false);
  if (!j.is_object()) return {"gave no readable answer in its trial: correct the plugin"};
  info.name = j.value("name", "");
  info.version = j.value("version", "");
  info.build_tag = j.value("buildTag", "");
  info.config_schema = j.value("schema", "");
  info.layout = j.value("layout", "");
  info.abi_major = j.value("major", std::uint16_t{0});
  info.abi_minor = j.value("minor", std::uint16_t{0});
  info.capabilities = j.value("capabilities", std::uint64_t{0});
  return j.value("wrong", "");
}

}  // namespace

std::string try_library(const std::filesystem::path& file, PluginKind kind, const std::string& name,
                        PluginInfo& info, std::chrono::milliseconds patience) {
  const auto has_answer = [](const std::string& stream) {
    return stream.find(static_cast<char>(kAnswer)) != std::string::npos;
  };
  const ChildEnd end =
      in_child([&](int out) { child(out, file, kind, name); }, patience, has_answer);
  if (!end.trouble.empty()) return "cannot be tried, " + end.trouble;
  const std::string& stream = end.stream;
  const std::size_t answer = stream.find(static_cast<char>(kAnswer));
  if (answer != std::string::npos) return read_answer(stream.substr(answer + 1), info);
  const char stage = stream.empty() ? static_cast<char>(kOpening) : stream.back();
  return end_text(end, patience, doing(stage)) + ": correct the plugin";
}

}  // namespace egw::host
