# The fields of what WeChat sends, for type checkers; tests/test_types.py holds them against tests/messages.
# A field that is not always there is declared like the others: `msg.get("Label", "")`.
from wechat.message import Message

class _Sent(Message):
    MsgId: str
    MsgDataId: str
    Idx: str
    UnionId: str
    BusinessId: str

class TextMessage(_Sent):
    Content: str
    bizmsgmenuid: str

class ImageMessage(_Sent):
    PicUrl: str
    MediaId: str

class VoiceMessage(_Sent):
    MediaId: str
    Format: str
    MediaId16K: str
    Recognition: str

class VideoMessage(_Sent):
    MediaId: str
    ThumbMediaId: str

class LocationMessage(_Sent):
    Location_X: str
    Location_Y: str
    Scale: str
    Label: str

class LinkMessage(_Sent):
    Title: str
    Description: str
    Url: str

class FileMessage(_Sent):
    Title: str
    Description: str
    FileKey: str
    FileMd5: str
    FileTotalLen: str

class MiniprogrampageMessage(_Sent):
    Title: str
    AppId: str
    PagePath: str
    ThumbUrl: str
    ThumbMediaId: str

class EventMessage(Message):
    Event: str
    EventKey: str

class DeviceTextMessage(Message):
    DeviceType: str
    DeviceID: str
    Content: str
    SessionID: str
    MsgId: str
    OpenID: str

class DeviceEventMessage(Message):
    Event: str
    DeviceType: str
    DeviceID: str
    Content: str
    SessionID: str
    OpenID: str

class DeviceStatusMessage(Message):
    Event: str
    DeviceType: str
    DeviceID: str
    Content: str
    SessionID: str
    OpenID: str
    OpType: str
    DeviceStatus: str

class HardwareMessage(Message):
    MsgId: str

class SubscribeEvent(EventMessage):
    Ticket: str

class LocationEvent(EventMessage):
    Latitude: str
    Longitude: str
    Precision: str

class UserEnterTempsessionEvent(EventMessage):
    SessionFrom: str

class DebugDemoEvent(EventMessage):
    debug_str: str

class ViewEvent(EventMessage):
    MenuId: str

class _ScanCodeInfo(Message):
    ScanType: str
    ScanResult: str

class ScancodePushEvent(EventMessage):
    ScanCodeInfo: _ScanCodeInfo

class _Item(Message):
    PicMd5Sum: str

class _PicList(Message):
    item: list[_Item]

class _SendPicsInfo(Message):
    Count: str
    PicList: _PicList

class PicSysphotoEvent(EventMessage):
    SendPicsInfo: _SendPicsInfo

class _SendLocationInfo(Message):
    Location_X: str
    Location_Y: str
    Scale: str
    Label: str
    Poiname: str

class LocationSelectEvent(EventMessage):
    SendLocationInfo: _SendLocationInfo

class TemplateSendJobFinishEvent(EventMessage):
    MsgID: str
    Status: str

class _Item2(Message):
    ArticleIdx: str
    UserDeclareState: str
    AuditState: str
    OriginalArticleUrl: str
    OriginalArticleType: str
    CanReprint: str
    NeedReplaceContent: str
    NeedShowReprintSource: str

class _ResultList(Message):
    item: list[_Item2]

class _CopyrightCheckResult(Message):
    Count: str
    ResultList: _ResultList
    CheckState: str

class _Item3(Message):
    ArticleIdx: str
    ArticleUrl: str

class _ResultList2(Message):
    item: list[_Item3]

class _ArticleUrlResult(Message):
    Count: str
    ResultList: _ResultList2

class MassSendJobFinishEvent(EventMessage):
    MsgID: str
    Status: str
    TotalCount: str
    FilterCount: str
    SentCount: str
    ErrorCount: str
    CopyrightCheckResult: _CopyrightCheckResult
    ArticleUrlResult: _ArticleUrlResult

class _Item4(Message):
    idx: str
    article_url: str

class _ArticleDetail(Message):
    count: str
    item: list[_Item4]

class _PublishEventInfo(Message):
    publish_id: str
    publish_status: str
    article_id: str
    article_detail: _ArticleDetail
    fail_idx: list[str]

class PublishJobFinishEvent(EventMessage):
    PublishEventInfo: _PublishEventInfo

class _List(Message):
    TemplateId: str
    SubscribeStatusString: str
    PopupScene: str

class _SubscribeMsgPopupEvent(Message):
    List: list[_List]

class SubscribeMsgPopupEvent(EventMessage):
    SubscribeMsgPopupEvent: _SubscribeMsgPopupEvent

class _List2(Message):
    TemplateId: str
    SubscribeStatusString: str

class _SubscribeMsgChangeEvent(Message):
    List: list[_List2]

class SubscribeMsgChangeEvent(EventMessage):
    SubscribeMsgChangeEvent: _SubscribeMsgChangeEvent

class _List3(Message):
    TemplateId: str
    MsgID: str
    ErrorCode: str
    ErrorStatus: str

class _SubscribeMsgSentEvent(Message):
    List: list[_List3]

class SubscribeMsgSentEvent(EventMessage):
    SubscribeMsgSentEvent: _SubscribeMsgSentEvent

class NotifyServiceMsgSendResultEvent(EventMessage):
    openid: str
    notify_code: str
    notify_type: str
    card_status: str
    fail_ret: str
    fail_msg: str

class KfCreateSessionEvent(EventMessage):
    KfAccount: str

class KfSwitchSessionEvent(EventMessage):
    FromKfAccount: str
    ToKfAccount: str

class _GuideScanEvent(Message):
    qrcode_guide_account: str
    qrcode_guide_openid: str
    openid: str
    action: str
    qrcode_info: str

class GuideQrcodeScanEvent(EventMessage):
    GuideScanEvent: _GuideScanEvent

class QualificationVerifySuccessEvent(EventMessage):
    ExpiredTime: str

class QualificationVerifyFailEvent(EventMessage):
    FailTime: str
    FailReason: str

class UserInfoModifiedEvent(EventMessage):
    OpenID: str
    AppID: str
    RevokeInfo: str

class UserAuthorizationRevokeEvent(EventMessage):
    OpenID: str
    AppID: str
    RevokeInfo: str
    PluginID: str
    OpenPID: str

class CardPassCheckEvent(EventMessage):
    CardId: str
    RefuseReason: str

class CardSkuRemindEvent(EventMessage):
    CardId: str
    Detail: str

class CardPayOrderEvent(EventMessage):
    OrderId: str
    Status: str
    CreateOrderTime: str
    PayFinishTime: str
    Desc: str
    FreeCoinCount: str
    PayCoinCount: str
    RefundFreeCoinCount: str
    RefundPayCoinCount: str
    OrderType: str
    Memo: str
    ReceiptInfo: str

class UserGetCardEvent(EventMessage):
    CardId: str
    IsGiveByFriend: str
    UserCardCode: str
    FriendUserName: str
    OuterId: str
    OldUserCardCode: str
    OuterStr: str
    IsRestoreMemberCard: str
    IsRecommendByFriend: str
    UnionId: str

class UserGiftingCardEvent(EventMessage):
    CardId: str
    UserCardCode: str
    IsReturnBack: str
    FriendUserName: str
    IsChatRoom: str

class UserDelCardEvent(EventMessage):
    CardId: str
    UserCardCode: str

class UserConsumeCardEvent(EventMessage):
    CardId: str
    UserCardCode: str
    ConsumeSource: str
    LocationName: str
    StaffOpenId: str
    VerifyCode: str
    RemarkAmount: str
    OuterStr: str

class UserPayFromPayCellEvent(EventMessage):
    CardId: str
    UserCardCode: str
    TransId: str
    LocationId: str
    Fee: str
    OriginalFee: str

class UserViewCardEvent(EventMessage):
    CardId: str
    UserCardCode: str
    OuterStr: str

class UpdateMemberCardEvent(EventMessage):
    CardId: str
    UserCardCode: str
    ModifyBonus: str
    ModifyBalance: str

class GiftcardPayDoneEvent(EventMessage):
    PageId: str
    OrderId: str

class GiftcardSendToFriendEvent(EventMessage):
    PageId: str
    OrderId: str
    IsChatRoom: str
    IsReturnBack: str

class GiftcardUserAcceptEvent(EventMessage):
    PageId: str
    OrderId: str
    IsChatRoom: str

class UserAuthorizeInvoiceEvent(EventMessage):
    SuccOrderId: str
    FailOrderId: str
    AuthorizeAppId: str
    Source: str

class UpdateInvoiceStatusEvent(EventMessage):
    Status: str
    CardId: str
    Code: str

class SubmitInvoiceTitleEvent(EventMessage):
    title: str
    phone: str
    tax_no: str
    addr: str
    bank_type: str
    bank_no: str
    attach: str
    title_type: str

class MerchantOrderEvent(EventMessage):
    OrderId: str
    OrderStatus: str
    ProductId: str
    SkuInfo: str

class UserScanProductEvent(EventMessage):
    KeyStandard: str
    KeyStr: str
    Country: str
    Province: str
    City: str
    Sex: str
    Scene: str
    ExtInfo: str

class UserScanProductAsyncEvent(EventMessage):
    KeyStandard: str
    KeyStr: str
    ExtInfo: str
    RegionCode: str

class UserScanProductEnterSessionEvent(EventMessage):
    KeyStandard: str
    KeyStr: str
    ExtInfo: str

class UserScanProductVerifyActionEvent(EventMessage):
    KeyStandard: str
    KeyStr: str
    Result: str
    ReasonMsg: str

class PoiCheckNotifyEvent(EventMessage):
    UniqId: str
    PoiId: str
    Result: str
    Msg: str

class AddStoreAuditInfoEvent(EventMessage):
    audit_id: str
    status: str
    reason: str
    is_upgrade: str
    poiid: str

class ModifyStoreAuditInfoEvent(EventMessage):
    audit_id: str
    status: str
    reason: str

class CreateMapPoiAuditInfoEvent(EventMessage):
    audit_id: str
    status: str
    map_poi_id: str
    name: str
    address: str
    latitude: str
    longitude: str
    sh_remark: str

class WifiConnectedEvent(EventMessage):
    ConnectTime: str
    ExpireTime: str
    VendorId: str
    ShopId: str
    DeviceNo: str

class _ChosenBeacon(Message):
    Uuid: str
    Major: str
    Minor: str
    Distance: str

class _AroundBeacons(Message):
    AroundBeacon: list[_ChosenBeacon]

class ShakearoundUserShakeEvent(EventMessage):
    ChosenBeacon: _ChosenBeacon
    AroundBeacons: _AroundBeacons

class WeappAuditSuccessEvent(EventMessage):
    SuccTime: str

class WeappAuditFailEvent(EventMessage):
    Reason: str
    FailTime: str
    ScreenShot: str

class WeappAuditDelayEvent(EventMessage):
    Reason: str
    DelayTime: str

class WxaNicknameAuditEvent(EventMessage):
    ret: str
    nickname: str
    reason: str

class WxaCategoryAuditEvent(EventMessage):
    ret: str
    first: str
    second: str
    reason: str

class _ResultInfo(Message):
    api_name: str
    apply_time: str
    audit_id: str
    audit_time: str
    reason: str
    status: str

class WxaPrivacyApplyEvent(EventMessage):
    result_info: _ResultInfo

class WxaIllegalRecordEvent(EventMessage):
    illegal_record_id: str
    appid: str
    create_time: str
    illegal_reason: str
    illegal_content: list[str]
    rule_url: str
    rule_name: str

class _IllegalMaterial(Message):
    content: str
    content_url: str

class _AppealMaterial(Message):
    reason: str
    proof_material_id: str

class _Material(Message):
    illegal_material: _IllegalMaterial
    appeal_material: _AppealMaterial

class WxaAppealRecordEvent(EventMessage):
    appeal_record_id: str
    appid: str
    appeal_time: str
    appeal_count: str
    appeal_from: str
    appeal_status: str
    audit_time: str
    audit_reason: str
    punish_description: str
    material: _Material

class WxaPunishEvent(EventMessage):
    punish_id: str
    appid: str
    punish_time: str
    illegal_reason: str
    illegal_content: list[str]
    detail: str
    rule_url: str
    rule_name: str
    adjust_guide_url: str
    event_type: str

class _Detail(Message):
    strategy: str
    errcode: str
    suggest: str
    label: str
    prob: str

class _Result(Message):
    suggest: str
    label: str

class WxaMediaCheckEvent(EventMessage):
    appid: str
    trace_id: str
    version: str
    detail: list[_Detail]
    errcode: str
    errmsg: str
    result: _Result

class _Result2(Message):
    comment_id: str

class WxaCommentBadScoreEvent(EventMessage):
    result: _Result2

class _Actions(Message):
    ActionTime: str
    ActionType: str
    ActionMsg: str
    Lat: str
    Lng: str

class AddExpressPathEvent(EventMessage):
    DeliveryID: str
    WayBillId: str
    OrderId: str
    Version: str
    Count: str
    Actions: list[_Actions]

class TradeManageOrderSettlementEvent(EventMessage):
    transaction_id: str
    merchant_id: str
    sub_merchant_id: str
    merchant_trade_no: str
    pay_time: str
    shipped_time: str
    estimated_settlement_time: str
    confirm_receive_method: str
    confirm_receive_time: str
    settlement_time: str

class TradeManageRemindAccessApiEvent(EventMessage):
    msg: str

class TradeManageRemindShippingEvent(EventMessage):
    transaction_id: str
    merchant_id: str
    sub_merchant_id: str
    merchant_trade_no: str
    pay_time: str
    msg: str

class _WeChatPayInfo(Message):
    MchOrderNo: str
    TransactionId: str
    PaidTime: str

class _GoodsInfo(Message):
    ProductId: str
    Quantity: str
    OrigPrice: str
    ActualPrice: str
    Attach: str

class _TeamInfo(Message):
    ActivityId: str
    TeamId: str
    TeamType: str
    TeamAction: str

class XpayGoodsDeliverNotifyEvent(EventMessage):
    OpenId: str
    OutTradeNo: str
    Env: str
    WeChatPayInfo: _WeChatPayInfo
    GoodsInfo: _GoodsInfo
    TeamInfo: _TeamInfo
    RetryTimes: str

class _CoinInfo(Message):
    Quantity: str
    OrigPrice: str
    ActualPrice: str
    Attach: str

class XpayCoinPayNotifyEvent(EventMessage):
    OpenId: str
    OutTradeNo: str
    Env: str
    WeChatPayInfo: _WeChatPayInfo
    CoinInfo: _CoinInfo
    RetryTimes: str

class XpayRefundNotifyEvent(EventMessage):
    OpenId: str
    WxRefundId: str
    MchRefundId: str
    WxOrderId: str
    MchOrderId: str
    RefundFee: str
    RetCode: str
    RetMsg: str
    RefundStartTimestamp: str
    RefundSuccTimestamp: str
    WxpayRefundTransactionId: str
    RetryTimes: str
    TeamInfo: _TeamInfo

class XpayComplaintNotifyEvent(EventMessage):
    OpenId: str
    WxOrderId: str
    MchOrderId: str
    TransactionId: str
    ComplaintId: str
    ComplaintDetail: str
    ComplaintTime: str
    RetryTimes: str
    RequestId: str

class XpayWxpayCallbackNotifyEvent(EventMessage):
    AppId: str
    NickName: str
    MerchantCode: str
    MerchantCompanyName: str
    BusinessTime: str
    BusinessCode: str
    BusinessState: str
    Remark: str
    EventType: str
    RetryTimes: str

ShortvideoMessage = VideoMessage
UnsubscribeEvent = EventMessage
ScanEvent = SubscribeEvent
EnterEvent = EventMessage
ClickEvent = EventMessage
ViewMiniprogramEvent = ViewEvent
ScancodeWaitmsgEvent = ScancodePushEvent
PicPhotoOrAlbumEvent = PicSysphotoEvent
PicWeixinEvent = PicSysphotoEvent
KfCloseSessionEvent = KfCreateSessionEvent
NamingVerifySuccessEvent = QualificationVerifySuccessEvent
NamingVerifyFailEvent = QualificationVerifyFailEvent
AnnualRenewEvent = QualificationVerifySuccessEvent
VerifyExpiredEvent = QualificationVerifySuccessEvent
UserAuthorizationCancellationEvent = UserInfoModifiedEvent
CardNotPassCheckEvent = CardPassCheckEvent
UserEnterSessionFromCardEvent = UserDelCardEvent
SubmitMembercardUserInfoEvent = UserDelCardEvent
ApplyMerchantAuditInfoEvent = ModifyStoreAuditInfoEvent

# Whatever comes: a function that takes any of them takes this.
# fmt: off
class Anything(  # type: ignore[misc]
    TextMessage, ImageMessage, VoiceMessage, VideoMessage, LocationMessage, LinkMessage, FileMessage,
    MiniprogrampageMessage, DeviceTextMessage, DeviceEventMessage, DeviceStatusMessage, HardwareMessage,
    SubscribeEvent, LocationEvent, UserEnterTempsessionEvent, DebugDemoEvent, ViewEvent, ScancodePushEvent,
    PicSysphotoEvent, LocationSelectEvent, TemplateSendJobFinishEvent, MassSendJobFinishEvent,
    PublishJobFinishEvent, SubscribeMsgPopupEvent, SubscribeMsgChangeEvent, SubscribeMsgSentEvent,
    NotifyServiceMsgSendResultEvent, KfCreateSessionEvent, KfSwitchSessionEvent, GuideQrcodeScanEvent,
    QualificationVerifySuccessEvent, QualificationVerifyFailEvent, UserInfoModifiedEvent,
    UserAuthorizationRevokeEvent, CardPassCheckEvent, CardSkuRemindEvent, CardPayOrderEvent, UserGetCardEvent,
    UserGiftingCardEvent, UserDelCardEvent, UserConsumeCardEvent, UserPayFromPayCellEvent, UserViewCardEvent,
    UpdateMemberCardEvent, GiftcardPayDoneEvent, GiftcardSendToFriendEvent, GiftcardUserAcceptEvent,
    UserAuthorizeInvoiceEvent, UpdateInvoiceStatusEvent, SubmitInvoiceTitleEvent, MerchantOrderEvent,
    UserScanProductEvent, UserScanProductAsyncEvent, UserScanProductEnterSessionEvent,
    UserScanProductVerifyActionEvent, PoiCheckNotifyEvent, AddStoreAuditInfoEvent, ModifyStoreAuditInfoEvent,
    CreateMapPoiAuditInfoEvent, WifiConnectedEvent, ShakearoundUserShakeEvent, WeappAuditSuccessEvent,
    WeappAuditFailEvent, WeappAuditDelayEvent, WxaNicknameAuditEvent, WxaCategoryAuditEvent, WxaPrivacyApplyEvent,
    WxaIllegalRecordEvent, WxaAppealRecordEvent, WxaPunishEvent, WxaMediaCheckEvent, WxaCommentBadScoreEvent,
    AddExpressPathEvent, TradeManageOrderSettlementEvent, TradeManageRemindAccessApiEvent,
    TradeManageRemindShippingEvent, XpayGoodsDeliverNotifyEvent, XpayCoinPayNotifyEvent, XpayRefundNotifyEvent,
    XpayComplaintNotifyEvent, XpayWxpayCallbackNotifyEvent
): ...
