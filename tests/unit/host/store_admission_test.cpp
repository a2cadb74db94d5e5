// Admission over the ABI: objects are read one by one, the same text is parsed once, and whoever
// closes the store does not wait for a question that hangs.
#include "egw/host/store_admission.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>
#include <vector>

#include "egw/host/convert.hpp"

namespace egw::host {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

struct Answer {
  std::string object;
  std::vector<std::string> denials;
  [[nodiscard]] egw_admission_sink sink() {
    return {this,
            [](void* ctx, egw_str text) { static_cast<Answer*>(ctx)->object = raw_view(text); },
            [](void*, egw_str) {},
            [](void* ctx, egw_str text) {
              static_cast<Answer*>(ctx)->denials.emplace_back(raw_view(text));
            }};
  }
};

// What a store's reader has.
struct Shelf {
  std::vector<std::string> texts;
  std::uint64_t revision = 1;
  std::vector<std::string>* log = nullptr;

  static std::int32_t get(void* ctx, const egw_object_kind*, egw_str, egw_str,
                          const egw_object_sink* out) {
    auto* self = static_cast<Shelf*>(ctx);
    out->object(out->ctx, self->revision, to_abi(std::string_view(self->texts.at(0))));
    return EGW_OK;
  }
  static std::int32_t list(void* ctx, const egw_object_kind*, const egw_object_sink* out) {
    auto* self = static_cast<Shelf*>(ctx);
    for (const std::string& text : self->texts) {
      if (self->log != nullptr) self->log->push_back("gives " + text);
      out->object(out->ctx, self->revision, to_abi(std::string_view(text)));
    }
    return EGW_OK;
  }
  [[nodiscard]] egw_reader reader() { return {this, get, list}; }
};

std::int32_t ask(StoreAdmission& admission, Shelf& shelf, Answer& answer) {
  const egw_object_kind kind = to_abi(model::Kind::kEgressPolicy);
  const egw_reader reader = shelf.reader();
  const egw_admission_sink sink = answer.sink();
  return StoreAdmission::on_admit(&admission, EGW_WRITE_CREATE, &kind, {},
                                  to_abi(std::string_view("{}")), &reader, &sink);
}

TEST(StoreAdmission, ACollectionIsNeverHeldAsAWhole) {
  StoreAdmission admission;
  std::vector<std::string> log;
  admission.offer([&log](const AdmitRequest& request) {
    request.each(model::Kind::kEgressPolicy,
                 [&log](const nlohmann::json& object) { log.push_back("takes " + object.dump()); });
    return AdmitReply{};
  });
  Shelf shelf{{"{}", R"({"a":1})"}, 1, &log};
  Answer answer;
  EXPECT_EQ(ask(admission, shelf, answer), EGW_OK);
  EXPECT_THAT(log, ElementsAre("gives {}", "takes {}", R"(gives {"a":1})", R"(takes {"a":1})"));
  shelf.texts = {"{}", "nonsense"};
  EXPECT_EQ(ask(admission, shelf, answer), EGW_DENIED);
  EXPECT_THAT(answer.denials, ElementsAre(HasSubstr("no readable JSON")));
}

TEST(StoreAdmission, TheSameTextIsParsedOnceAndAnotherIsNotTakenForIt) {
  StoreAdmission admission;
  std::vector<std::shared_ptr<const nlohmann::json>> seen;
  admission.offer([&seen](const AdmitRequest& request) {
    seen.push_back(request.get(model::Kind::kEgressGateway, {"", "g"}));
    return AdmitReply{};
  });
  const auto text = [](char c) { return R"({"a":")" + std::string(5000, c) + "\"}"; };
  Shelf shelf{{text('x')}, 7, nullptr};
  Answer answer;
  for (int i = 0; i < 2; ++i) EXPECT_EQ(ask(admission, shelf, answer), EGW_OK);
  shelf.texts = {text('y')};  // of the same revision: a store that was put back
  EXPECT_EQ(ask(admission, shelf, answer), EGW_OK);
  ASSERT_EQ(seen.size(), 3U);
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_EQ((*seen[2])["a"], std::string(5000, 'y'));
}

TEST(StoreAdmission, ClosingDoesNotWaitForAQuestionThatHangs) {
  StoreAdmission admission;
  auto begun = std::make_shared<std::promise<void>>();
  auto go_on = std::make_shared<std::promise<void>>();
  admission.offer([begun, go_on](const AdmitRequest&) {
    begun->set_value();
    go_on->get_future().wait();
    return AdmitReply{};
  });
  Shelf shelf{{"{}"}, 1, nullptr};
  auto hanging = std::async(std::launch::async, [&] {
    Answer answer;
    return ask(admission, shelf, answer);
  });
  begun->get_future().wait();
  const auto begin = std::chrono::steady_clock::now();
  admission.revoke();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
  Answer late;
  EXPECT_EQ(ask(admission, shelf, late), EGW_DENIED);
  EXPECT_THAT(late.denials, ElementsAre("egw has closed this store"));
  go_on->set_value();
  EXPECT_EQ(hanging.get(), EGW_OK);
}

}  // namespace
}  // namespace egw::host
