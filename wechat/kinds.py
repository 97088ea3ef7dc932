"""What WeChat sends: every MsgType and Event that it documents, or has been seen to send."""

MSG_TYPES = str.split(
    """
    text image voice video shortvideo location link file miniprogrampage event
    device_text device_event device_status hardware
    """
)
EVENTS = str.split(
    """
    subscribe unsubscribe SCAN LOCATION ENTER user_enter_tempsession debug_demo
    CLICK VIEW view_miniprogram scancode_push scancode_waitmsg pic_sysphoto pic_photo_or_album pic_weixin
    location_select TEMPLATESENDJOBFINISH MASSSENDJOBFINISH PUBLISHJOBFINISH
    subscribe_msg_popup_event subscribe_msg_change_event subscribe_msg_sent_event notify_service_msg_send_result
    kf_create_session kf_close_session kf_switch_session guide_qrcode_scan_event
    qualification_verify_success qualification_verify_fail naming_verify_success naming_verify_fail annual_renew
    verify_expired user_info_modified user_authorization_revoke user_authorization_cancellation
    card_pass_check card_not_pass_check card_sku_remind card_pay_order user_get_card user_gifting_card user_del_card
    user_consume_card user_pay_from_pay_cell user_view_card user_enter_session_from_card update_member_card
    submit_membercard_user_info giftcard_pay_done giftcard_send_to_friend giftcard_user_accept
    user_authorize_invoice update_invoice_status submit_invoice_title
    merchant_order user_scan_product user_scan_product_async user_scan_product_enter_session
    user_scan_product_verify_action poi_check_notify add_store_audit_info modify_store_audit_info
    create_map_poi_audit_info apply_merchant_audit_info WifiConnected ShakearoundUserShake
    weapp_audit_success weapp_audit_fail weapp_audit_delay wxa_nickname_audit wxa_category_audit wxa_privacy_apply
    wxa_illegal_record wxa_appeal_record wxa_punish_event wxa_media_check wxa_comment_bad_score add_express_path
    trade_manage_order_settlement trade_manage_remind_access_api trade_manage_remind_shipping
    xpay_goods_deliver_notify xpay_coin_pay_notify xpay_refund_notify xpay_complaint_notify xpay_wxpay_callback_notify
    """
)
WORDS = str.split("Template Mass Send Job Finish Publish")  # of names in capitals alone


def class_name(kind: str, ending: str) -> str:
    """The name for type checkers: `TextMessage`, `ScanEvent`, `KfCreateSessionEvent`, `MassSendJobFinishEvent`."""
    for word in WORDS:
        kind = kind.replace(word.upper(), word)
    kind = kind.capitalize() if kind.isupper() else kind
    kind = kind.removesuffix("_event") if ending == "Event" else kind
    return "".join(word[0].upper() + word[1:] for word in kind.split("_")) + ending


CLASSES = [*(class_name(kind, "Message") for kind in MSG_TYPES), *(class_name(event, "Event") for event in EVENTS)]
