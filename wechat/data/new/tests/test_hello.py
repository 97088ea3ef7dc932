def test_a_new_follower_is_greeted(user):
    assert user.does("subscribe").Content == "你好，很高兴认识你！"


def test_hello_is_answered_and_other_texts_are_told_of_it(user):
    assert user.says("Hello").Content == "你好，很高兴认识你！"
    assert "你好" in user.says("三体").Content
