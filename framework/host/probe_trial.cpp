#include "egw/host/probe_trial.hpp"

#include <nlohmann/json.hpp>

#include "egw/host/forked.hpp"

namespace egw::host {
namespace {

using nlohmann::json;

// The last byte of a whole answer; JSON has none such.
constexpr char kEnd = '\n';

json to_json(const ProbeAnswer& answer) {
  if (!answer) {
    const Error& e = answer.error();
    return {{"code", static_cast<int>(e.code)},
            {"object", e.object},
            {"message", e.message},
            {"errno", e.sys_errno}};
  }
  json out = {{"findings", json::array()}};
  for (const ProbeFinding& f : *answer) {
    out["findings"].push_back(
        {{"ok", f.ok}, {"advisory", f.advisory}, {"code", f.code}, {"message", f.message}});
  }
  return out;
}

ProbeAnswer from_json(const json& j, const std::string& label) {
  if (!j.is_object()) return fail(Errc::kInternal, label, "probe gave no readable answer");
  if (!j.contains("findings")) {
    return tl::unexpected<Error>(Error{static_cast<Errc>(j.value("code", 0)),
                                       j.value("object", label), j.value("message", ""),
                                       j.value("errno", 0)});
  }
  std::vector<ProbeFinding> out;
  for (const json& f : j["findings"]) {
    ProbeFinding finding;
    finding.ok = f.value("ok", false);
    finding.advisory = f.value("advisory", false);
    finding.code = f.value("code", "");
    finding.message = f.value("message", "");
    out.push_back(std::move(finding));
  }
  return out;
}

}  // namespace

ProbeAnswer probe_in_child(const std::function<ProbeAnswer()>& probe, const std::string& label,
                           std::chrono::milliseconds patience) {
  const auto body = [&](int out) {
    std::string text = to_json(probe()).dump(-1, ' ', false, json::error_handler_t::replace);
    text += kEnd;
    send_to_parent(out, text);
  };
  const auto whole = [](const std::string& stream) {
    return !stream.empty() && stream.back() == kEnd;
  };
  const ChildEnd end = in_child(body, patience, whole);
  // Without a child (no memory, no process left) it is asked here, as it will be from then on.
  if (!end.trouble.empty()) return probe();
  if (whole(end.stream)) return from_json(json::parse(end.stream, nullptr, false), label);
  return fail(Errc::kInternal, label, end_text(end, patience, "in probe") + ": correct the plugin");
}

}  // namespace egw::host
