// datapath.json (datapath_record.hpp).
#include "egw/runtime/datapath_record.hpp"

#include <fstream>

#include "egw/runtime/sysctls.hpp"

namespace egw::runtime {
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr const char* kFile = "datapath.json";
constexpr std::size_t kLongList = 20;
constexpr std::size_t kMostText = 16U << 10U;

json to_json(const ProgrammedDatapath& datapath) {
  json out = {{"name", datapath.choice.name}, {"config", datapath.choice.config}};
  if (!datapath.holds.empty()) out["holds"] = datapath.holds;
  return out;
}

json object_of(const json& j, const char* key) {
  const auto at = j.find(key);
  return at != j.end() && at->is_object() ? *at : json::object();
}

std::optional<ProgrammedDatapath> from_json(const json& j) {
  if (!j.is_object() || !j.contains("name") || !j["name"].is_string()) return std::nullopt;
  ProgrammedDatapath out;
  out.choice.name = j["name"].get<std::string>();
  out.choice.config = object_of(j, "config");
  out.holds = object_of(j, "holds");
  return out;
}

std::string text_of(const json& j, const char* key) {
  const auto at = j.find(key);
  return at != j.end() && at->is_string() ? at->get<std::string>() : std::string();
}

// An error: there is a file, and it is no record. null: there is none.
Result<json> read_document(const fs::path& file) {
  std::error_code error;
  const auto status = fs::status(file, error);
  if (status.type() == fs::file_type::not_found) return json();
  if (status.type() == fs::file_type::directory) {
    return fail(Errc::kInvalid, file.string(), "is a folder: remove it");
  }
  std::ifstream in;
  if (fs::is_regular_file(status)) in.open(file);
  if (!in.is_open()) return fail(Errc::kInvalid, file.string(), "cannot be read");
  json document = json::parse(in, nullptr, false);
  if (document.is_discarded()) return fail(Errc::kInvalid, file.string(), "is not valid JSON");
  if (from_json(document)) return document;
  return fail(Errc::kInvalid, file.string(),
              "is no record of a datapath: want an object with a text `name`");
}

}  // namespace

fs::path datapath_record(const fs::path& state_dir) { return state_dir / kFile; }

std::string datapath_record_fault(const fs::path& state_dir) {
  const auto document = read_document(datapath_record(state_dir));
  return document ? std::string() : document.error().message;
}

fs::path datapath_dir(const fs::path& state_dir, const std::string& name) {
  return state_dir / ("datapath-" + name);
}

std::optional<DatapathRecord> read_datapath_record(const fs::path& state_dir) {
  const auto read = read_document(datapath_record(state_dir));
  if (!read || read->is_null()) return std::nullopt;
  const json& document = *read;
  auto now = from_json(document);
  DatapathRecord out;
  out.now = std::move(*now);
  out.boot = text_of(document, "boot");
  const auto automatic = document.find("automatic");
  out.automatic = automatic != document.end() && *automatic == true;
  const json others = object_of(document, "others");
  for (const auto& [name, why] : others.items()) {
    if (why.is_string()) out.others[name] = why.get<std::string>();
  }
  const auto former = document.find("former");
  if (former != document.end() && former->is_array()) {
    for (const json& one : *former) {
      if (auto datapath = from_json(one)) out.former.push_back(std::move(*datapath));
    }
  }
  return out;
}

Result<void> write_datapath_record(const fs::path& state_dir, const DatapathRecord& record) {
  json document = to_json(record.now);
  document["boot"] = record.boot;
  if (record.automatic) {
    document["automatic"] = true;
    document["others"] = record.others;
  }
  for (const auto& former : record.former) document["former"].push_back(to_json(former));
  return write_file(datapath_record(state_dir), document.dump(1) + "\n");
}

void remove_datapath_record(const fs::path& state_dir) {
  std::error_code ignored;
  fs::remove(datapath_record(state_dir), ignored);
}

json what_it_holds(json observed) {
  if (!observed.is_object()) return json::object();
  observed.erase("endpoints");
  observed.erase("egresses");
  observed.erase("datapath");
  for (auto& [name, value] : observed.items()) {
    if (value.is_array() && value.size() > kLongList) {
      value = std::to_string(value.size()) + " of them";
    }
    if (!value.is_object()) continue;
    for (auto& [key, inner] : value.items()) {
      if (inner.is_array() && inner.size() > kLongList) {
        inner = std::to_string(inner.size()) + " of them";
      }
    }
  }
  return observed.dump().size() > kMostText ? json::object() : observed;
}

std::string this_boot() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return boot;
}

}  // namespace egw::runtime
