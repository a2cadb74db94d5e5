// See pod_text.hpp. Whatever decode<Pod>() would find a fault in spoils the text here.
#include "egw/model/pod_text.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include "egw/model/json_text.hpp"

namespace egw::model {
namespace {

using Names = std::string_view;

void read_text(JsonText& in, std::string& out) {
  if (!in.null()) out = in.string();
}

// A string that is looked at here alone; empty: absent.
std::string_view read_view(JsonText& in) { return in.null() ? std::string_view() : in.string(); }

void read_word(JsonText& in, std::string_view wanted) {
  const std::string_view word = read_view(in);
  if (!word.empty() && word != wanted) in.fail();
}

void read_revision(JsonText& in, std::uint64_t& out) {
  const std::string_view text = read_view(in);
  if (text.empty()) return;
  const char* end = text.data() + text.size();
  const auto [stop, problem] = std::from_chars(text.data(), end, out);
  if (problem != std::errc() || stop != end) in.fail();
}

void read_time(JsonText& in, std::int64_t& out_ms) {
  if (in.null()) return;
  const auto time = parse_time(in.string());
  if (!time) return in.fail();
  out_ms = *time;
}

// One of a list of addresses, or alone; an empty text is a fault in the list only.
void read_address(JsonText& in, std::vector<Address>& out) {
  const auto address = Address::parse(in.string());
  if (!address) return in.fail();
  out.push_back(*address);
}

void read_labels(JsonText& in, Labels& out) {
  if (in.null()) return;
  std::vector<std::pair<std::string_view, std::string_view>> read;
  constexpr std::size_t kUsual = 16;
  read.reserve(kUsual);
  in.members([&](std::string_view key) {
    if (key.find('\\') != std::string_view::npos) in.fail();
    read.emplace_back(key, in.string());
  });
  if (!in.good()) return;
  std::sort(read.begin(), read.end());
  out.reserve(read.size());
  for (const auto& [key, value] : read) {
    if (!out.empty() && std::prev(out.end())->first == key) return in.fail();
    out.emplace_hint(out.end(), key, value);
  }
}

void read_meta(JsonText& in, ObjectMeta& out) {
  static constexpr std::array kNames{Names("name"),
                                     Names("namespace"),
                                     Names("uid"),
                                     Names("resourceVersion"),
                                     Names("generation"),
                                     Names("creationTimestamp"),
                                     Names("deletionTimestamp"),
                                     Names("labels"),
                                     Names("annotations"),
                                     Names("finalizers")};
  if (in.null()) return;
  MemberNames names(kNames);
  in.members([&](std::string_view key) {
    switch (names.find(in, key)) {
      case 0:
        return read_text(in, out.name);
      case 1:
        return read_text(in, out.ns);
      case 2:
        return static_cast<void>(read_view(in));
      case 3:
        return read_revision(in, out.revision);
      case 4:
        if (!in.null()) out.generation = in.whole();
        if (out.generation < 0) in.fail();
        return;
      case 5:
        return read_time(in, out.created_ms);
      case 6:
        return read_time(in, out.deleted_ms);
      case 7:
        return read_labels(in, out.labels);
      case 8:
        if (!in.null())
          in.members([&in](std::string_view) { static_cast<void>(in.skip_string()); });
        return;
      case 9:
        if (!in.null()) in.elements([&in] { static_cast<void>(in.string()); });
        return;
      default:
        static_cast<void>(in.skip());
    }
  });
}

void read_spec(JsonText& in, Pod& out) {
  static constexpr std::array kNames{Names("nodeName"), Names("hostNetwork")};
  if (in.null()) return;
  MemberNames names(kNames);
  in.members([&](std::string_view key) {
    switch (names.find(in, key)) {
      case 0:
        return read_text(in, out.node_name);
      case 1:
        if (!in.null()) out.host_network = in.boolean();
        return;
      default:
        static_cast<void>(in.skip());
    }
  });
}

void read_list(JsonText& in, std::vector<Address>& out) {
  static constexpr std::array kNames{Names("ip")};
  if (in.null()) return;
  out.reserve(1);  // most have one
  in.elements([&] {
    MemberNames names(kNames);
    in.members([&](std::string_view key) {
      if (names.find(in, key) != 0) {
        static_cast<void>(in.skip());
      } else if (!in.null()) {
        read_address(in, out);
      }
    });
  });
}

void read_status(JsonText& in, Pod& out) {
  static constexpr std::array kNames{Names("phase"), Names("podIPs"), Names("podIP")};
  if (in.null()) return;
  MemberNames names(kNames);
  std::vector<Address> single;
  in.members([&](std::string_view key) {
    switch (names.find(in, key)) {
      case 0: {
        const std::string_view phase = read_view(in);
        out.finished = phase == "Succeeded" || phase == "Failed";
        return;
      }
      case 1:
        return read_list(in, out.ips);
      case 2: {
        if (in.null()) return;
        const std::string_view text = in.string();
        if (text.empty()) return;
        const auto address = Address::parse(text);
        if (!address) return in.fail();
        single.assign(1, *address);
        return;
      }
      default:
        static_cast<void>(in.skip());
    }
  });
  if (out.ips.empty()) out.ips = std::move(single);
}

}  // namespace

std::optional<Pod> read_pod(std::string_view json) {
  static constexpr std::array kNames{Names("apiVersion"), Names("kind"), Names("metadata"),
                                     Names("spec"), Names("status")};
  JsonText in(json);
  MemberNames names(kNames);
  std::optional<Pod> out(std::in_place);
  in.members([&](std::string_view key) {
    switch (names.find(in, key)) {
      case 0:
        return read_word(in, "v1");
      case 1:
        return read_word(in, info(Kind::kPod).kind);
      case 2:
        return read_meta(in, out->meta);
      case 3:
        return read_spec(in, *out);
      case 4:
        return read_status(in, *out);
      default:
        static_cast<void>(in.skip());
    }
  });
  if (!in.done()) out.reset();
  return out;
}

}  // namespace egw::model
