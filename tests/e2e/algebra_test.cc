// Spans, forgetting, decay and diff over a real socket: states of their own kind, which are kept,
// continued, merged and refused with reasons.
#include <gtest/gtest.h>

#include "tests/e2e/library_fixture.h"

namespace anabranch {
namespace {

using grpc::StatusCode;

class AlgebraTest : public LibraryTest {
 protected:
  static v1::SpanRequest Span(const std::string& id, int64_t begin, int64_t end) {
    v1::SpanRequest request;
    request.set_id(id);
    request.mutable_span()->set_begin(begin);
    request.mutable_span()->set_end(end);
    return request;
  }
  grpc::Status Extract(const v1::SpanRequest& request, v1::ComputedState* response) {
    return client_->states().ExtractSpan(TestClient::Context().get(), request, response);
  }
  grpc::Status Forget(const v1::SpanRequest& request, v1::ComputedState* response) {
    return client_->states().Forget(TestClient::Context().get(), request, response);
  }
  grpc::Status Decay(const std::string& id, int64_t tokens, v1::ComputedState* response) {
    v1::DecayRequest request;
    request.set_id(id);
    request.set_tokens(tokens);
    return client_->states().Decay(TestClient::Context().get(), request, response);
  }
  v1::ComputedState Must(grpc::Status status, v1::ComputedState response) {
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  v1::ComputedState MustExtract(const v1::SpanRequest& request) {
    v1::ComputedState response;
    const grpc::Status status = Extract(request, &response);
    return Must(status, response);
  }
  v1::ComputedState MustForget(const v1::SpanRequest& request) {
    v1::ComputedState response;
    const grpc::Status status = Forget(request, &response);
    return Must(status, response);
  }
  v1::ComputedState MustDecay(const std::string& id, int64_t tokens) {
    v1::ComputedState response;
    const grpc::Status status = Decay(id, tokens, &response);
    return Must(status, response);
  }
  v1::DiffResponse MustDiff(const std::string& a, const std::string& b) {
    v1::DiffRequest request;
    request.set_id_a(a);
    request.set_id_b(b);
    v1::DiffResponse response;
    const grpc::Status status =
        client_->states().Diff(TestClient::Context().get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  double Largest(const v1::DiffResponse& diff) {
    double largest = 0;
    for (const v1::TensorDistance& tensor : diff.tensors()) {
      largest = std::max(largest, tensor.whole().relative_l2());
    }
    return largest;
  }
  v1::State MustMerge(const std::vector<std::string>& ids, v1::MergeMethod method) {
    v1::MergeRequest request;
    for (const std::string& id : ids) request.add_inputs()->set_id(id);
    request.set_method(method);
    v1::MergeResponse response;
    const grpc::Status status =
        client_->states().Merge(TestClient::Context().get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.state();
  }
  static std::vector<int32_t> Joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }
};

class AlgebraOfModelTest : public AlgebraTest, public testing::WithParamInterface<const char*> {};

// A span of points that no state stands at is reached by reading again, with the same result.
TEST_P(AlgebraOfModelTest, ASpanIsItsTokensAndGoesBackToItsPlace) {
  Start(GoldenModel(GetParam()));
  const std::vector<int32_t> a = SomeTokens(60, 1), b = SomeTokens(280, 2);
  const std::string first = Read("first", a), whole = Read("whole", Joined(a, b));
  v1::SpanRequest request = Span("whole", 60, 340);
  request.set_ref("part");
  (*request.mutable_labels())["kind"] = "span";
  const v1::ComputedState span = MustExtract(request);
  EXPECT_EQ(span.ref().state_id(), span.state().id());
  EXPECT_EQ(span.state().operation(), "span");
  EXPECT_EQ(span.state().operation_params(), "span=60..340");
  ASSERT_EQ(span.state().parent_ids_size(), 1);
  EXPECT_EQ(span.state().parent_ids(0), whole);
  EXPECT_EQ(span.state().token_count(), 280);
  EXPECT_EQ(span.usage().tokens_replayed(), 60);
  EXPECT_EQ(MustExtract(Span(whole, 60, 340)).state().id(), span.state().id());
  CreateFrom("s", span.state().id());
  EXPECT_EQ(client_->SessionTokens("s"), b);
  const v1::State back = MustMerge({"first", "part"}, v1::MERGE_METHOD_ORDERED);
  EXPECT_LT(Largest(MustDiff(back.id(), whole)), 1e-5);
  EXPECT_GT(Largest(MustDiff(first, whole)), 1e-2);
  // After a restart it goes on with the same bits.
  const std::vector<float> before = Fingerprint("s");
  Start(GoldenModel(GetParam()));
  EXPECT_EQ(Fingerprint("s"), before);
}

TEST_P(AlgebraOfModelTest, AStateForgetsASpanAndGoesOn) {
  Start(GoldenModel(GetParam()));
  const std::vector<int32_t> a = SomeTokens(60, 1), b = SomeTokens(30, 2), c = SomeTokens(250, 3);
  Read("main", a);
  const std::string early = Commit("main");
  ASSERT_TRUE(client_->AppendTokens("main", Joined(b, c)).has_done);
  const std::string late = Commit("main");
  v1::SpanRequest request = Span(late, 0, 90);
  request.mutable_span()->set_begin_id(early);
  const v1::ComputedState rest = MustForget(request);
  EXPECT_EQ(rest.begin(), 60);
  EXPECT_EQ(rest.state().operation_params(), "span=60..90 elapsed=340");
  EXPECT_EQ(rest.state().token_count(), 310);
  CreateFrom("x", rest.state().id());
  EXPECT_EQ(client_->SessionTokens("x"), Joined(a, c));
  ASSERT_TRUE(client_->AppendTokens("x", SomeTokens(20, 4)).has_done);
  const std::string on = Commit("x");
  // What was there before the span is still a point; what is behind it is not.
  EXPECT_EQ(MustDiff(on, early).ancestor_id(), early);
  v1::ComputedState response;
  const grpc::Status inside = Extract(Span(on, 100, 330), &response);
  EXPECT_EQ(ReasonOf(inside), "NO_SUCH_POINT") << inside.error_message();
  EXPECT_TRUE(Extract(Span(on, 30, 330), &response).ok());
  v1::RewindRequest rewind;
  rewind.set_session_id("x");
  rewind.set_token_count(100);
  v1::RewindResponse rewound;
  EXPECT_EQ(ReasonOf(client_->sessions().Rewind(TestClient::Context().get(), rewind, &rewound)),
            "NO_SUCH_POINT");
  rewind.set_token_count(50);
  EXPECT_TRUE(client_->sessions().Rewind(TestClient::Context().get(), rewind, &rewound).ok());
  EXPECT_EQ(client_->SessionTokens("x"), std::vector<int32_t>(a.begin(), a.begin() + 50));
}

TEST_P(AlgebraOfModelTest, ForgettingTheEndIsTheEarlierStateAged) {
  Start(GoldenModel(GetParam()));
  const std::string early = Read("main", SomeTokens(60, 1));
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(40, 2)).has_done);
  v1::SpanRequest request;
  request.set_id(Commit("main"));
  request.mutable_span()->set_begin_id(early);
  const v1::ComputedState forgotten = MustForget(request);
  EXPECT_EQ(forgotten.state().token_count(), 60);
  const v1::DiffResponse diff = MustDiff(forgotten.state().id(), early);
  for (const v1::TensorDistance& tensor : diff.tensors()) {
    const double distance = tensor.whole().relative_l2();
    EXPECT_TRUE(tensor.kind() == "recurrent" ? distance > 0 : distance == 0) << tensor.kind();
  }
  EXPECT_EQ(forgotten.state().operation_params(), "span=60..100 elapsed=100");
}

TEST_P(AlgebraOfModelTest, DecayAddsUpAndKeepsItsPlaceInTheLineage) {
  Start(GoldenModel(GetParam()));
  const std::string state = Read("main", SomeTokens(100, 1));
  const v1::ComputedState once = MustDecay("main", 700);
  const v1::ComputedState half = MustDecay("main", 300);
  const v1::ComputedState twice = MustDecay(half.state().id(), 400);
  EXPECT_EQ(twice.state().operation_params(), "tokens=400 elapsed=800");
  EXPECT_LT(Largest(MustDiff(once.state().id(), twice.state().id())), 1e-5);
  EXPECT_GT(Largest(MustDiff(once.state().id(), state)), 1e-3);
  CreateFrom("aged", twice.state().id());
  EXPECT_EQ(client_->SessionTokens("aged"), SomeTokens(100, 1));
  ASSERT_TRUE(client_->AppendTokens("aged", SomeTokens(50, 2)).has_done);
  const std::string on = Commit("aged");
  EXPECT_EQ(MustDiff(on, "main").ancestor_id(), state);
  EXPECT_EQ(MustExtract(Span(on, 20, 150)).state().operation_params(), "span=20..150 elapsed=830");
}

INSTANTIATE_TEST_SUITE_P(Models, AlgebraOfModelTest,
                         testing::Values("mamba", "mamba2", "granitemoehybrid_dense", "falcon_h1"),
                         [](const auto& info) { return std::string(info.param); });

// Aged states are not what reading their tokens gives.
TEST_F(AlgebraTest, ComputedStatesAreNoPrefixOfAHistory) {
  Start(GoldenModel("mamba2"));
  const std::string state = Read("main", SomeTokens(50, 1));
  MustDecay("main", 10);
  v1::CreateSessionRequest request;
  request.set_session_id("again");
  *request.mutable_history() = TokenContent(SomeTokens(50, 1));
  v1::CreateSessionResponse response;
  ASSERT_TRUE(client_->Create(request, &response).ok());
  EXPECT_EQ(response.session().head_state_id(), state);
}

TEST_F(AlgebraTest, DiffComparesHeadByHead) {
  Start(GoldenModel("granitemoehybrid_dense"));
  Read("main", SomeTokens(40, 1));
  Fork("main", 2);
  ASSERT_TRUE(client_->AppendTokens("main/1", SomeTokens(20, 2)).has_done);
  const std::string a = Commit("main/1"), b = Commit("main/2");
  const v1::DiffResponse diff = MustDiff(a, b);
  EXPECT_EQ(diff.ancestor_id(), b);
  EXPECT_EQ(diff.a().token_count(), 60);
  bool keys = false;
  for (const v1::TensorDistance& tensor : diff.tensors()) {
    EXPECT_GT(tensor.relative_l2_size(), 0);
    EXPECT_EQ(tensor.relative_l2_size(), tensor.norm_b_size());
    EXPECT_GT(tensor.whole().norm_a(), 0);
    keys |= tensor.kind() == "keys";
  }
  EXPECT_TRUE(keys);
  EXPECT_EQ(Largest(MustDiff(a, a)), 0);
}

TEST_F(AlgebraTest, BadRequestsAreNamedAndChangeNothing) {
  Start(GoldenModel("mamba"));
  const std::string foreign = Read("foreign", SomeTokens(10, 1));
  Start(GoldenModel("mamba2"));
  const std::string a = Read("a", SomeTokens(20, 1)), b = Read("b", SomeTokens(30, 2));
  const v1::State merge = MustMerge({"a", "b"}, v1::MERGE_METHOD_COMPOSE);
  const auto expect = [&](const grpc::Status& status, StatusCode code, const std::string& reason,
                          const std::string& part) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_EQ(ReasonOf(status), reason);
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  };
  v1::ComputedState response;
  expect(Extract(Span("absent", 0, 1), &response), StatusCode::NOT_FOUND, "REF_NOT_FOUND",
         "absent");
  expect(Extract(Span(foreign, 0, 1), &response), StatusCode::FAILED_PRECONDITION, "MODEL_MISMATCH",
         foreign);
  expect(Extract(Span("a", 5, 5), &response), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
         "5..5");
  expect(Extract(Span("a", 5, 21), &response), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
         "0..20");
  expect(Extract(Span("a", -1, 4), &response), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
         "span");
  expect(Forget(Span("a", 0, 20), &response), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
         "nothing would be left");
  expect(Forget(Span(merge.id(), 10, 30), &response), StatusCode::FAILED_PRECONDITION,
         "NO_SUCH_POINT", merge.id());
  v1::SpanRequest unrelated = Span("b", 0, 30);
  unrelated.mutable_span()->set_begin_id(a);
  expect(Extract(unrelated, &response), StatusCode::FAILED_PRECONDITION, "NOT_AN_ANCESTOR",
         "share no ancestor");
  expect(Decay("a", 0, &response), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "tokens");
  expect(Decay(foreign, 5, &response), StatusCode::FAILED_PRECONDITION, "MODEL_MISMATCH", foreign);
  v1::DiffRequest diff;
  diff.set_id_a("a");
  diff.set_id_b(foreign);
  v1::DiffResponse difference;
  expect(client_->states().Diff(TestClient::Context().get(), diff, &difference),
         StatusCode::FAILED_PRECONDITION, "MODEL_MISMATCH", foreign);
  v1::SpanRequest ref = Span("a", 0, 10);
  ref.set_ref("b");
  ref.set_expected_ref_state_id(a);
  expect(Extract(ref, &response), StatusCode::ABORTED, "REF_MISMATCH", "");
  v1::ListStatesResponse states;
  ASSERT_TRUE(client_->states().ListStates(TestClient::Context().get(), {}, &states).ok());
  EXPECT_EQ(states.states_size(), 4);
}

}  // namespace
}  // namespace anabranch
