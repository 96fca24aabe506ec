"""Owns other assistants' replies: a history holds what some other model, or another edition of this one, has answered.
None of it is learnt to be said; what the user told before it holds all the same."""
import re
from turns import MUTE, plain

TOLD = ("Noted", "Nice to meet you", "Okay")                # how our own replies to what was told begin
GOT = "(Got it|Okay|Ok|Alright|All right|Sure|Sure thing|Great|Good|Thanks|Thank you|Understood|Noted|Perfect|Cool|Of course|Certainly|I see|Right|Very well|Absolutely|Done|Wonderful|Lovely|Nice|Awesome|Will do|Excellent|Oh|Ah, I see|Yes|Copy that|Fine)"
MORE = "( How can I help you( today| with that|)?| Is there anything else( I can do for you| you need|)?| What can I do for you( today|)?| Anything else?| Let me know if you need anything( else|).| What would you like to know?| Feel free to ask.| Tell me more!| How may I assist you( today|)?| I am here to help.| 😊| 👍||||||)"
PLAIN = [GOT + "(!|.|||, thanks|, I will keep that in mind.|, I have made a note of that.|. I'll remember that.|! I've noted that down.|, thank you for telling me.|, thanks for letting me know!|, that is good to know.|. That's helpful to know.|, I've saved it.|, it is on record.)" + MORE,
         "(I'll remember that|I will remember that|I have noted that|I've made a note|Thanks for (letting me know|telling me|sharing that|the information)|That's (good|nice|great|useful|helpful) to know|That sounds (great|lovely|nice|good|like fun|important)|How (nice|lovely|interesting|wonderful)|Interesting|I'll keep that in mind|Good to know|Sounds good|Sounds like a plan|What a (nice|lovely|beautiful) (name|thing|idea|choice)|Thank you for (sharing|your message|the update)|Haha, okay|Oh no|Oh dear, I hope it goes well)(!|.|)" + MORE,
         "(I'm sorry, but|Sorry,|Unfortunately,|As an AI language model,|As an AI,|I'm just an assistant, so) I (can't help with that|cannot remember things|do not have access to that|don't understand|can't do that|have no memory of our conversations|can't store personal information)." + MORE,
         "(ok|k|yes|👍|✅|mhm|okay then|...|-|Hello!|Hi!|Hello, how can I help you today?|Could you tell me more?|What do you mean?|Why?|And?|Really?|Tell me more.|I don't understand.|What is your question?|What would you like me to do?)"]
MET = ["(Hello|Hi|Hey|Hello there|Hi there|Greetings|Good day|Welcome|Nice to meet you|Pleased to meet you|Great to meet you|It's nice to meet you|Lovely to meet you|A pleasure|Hey there|Good to see you|Glad to meet you|Pleasure to meet you), <v>(!|.||! 👋)" + MORE, "(Hello|Hi|Hey) <v>(!|.||,)" + MORE, "(Hello|Hi|Hey|Welcome) <v>(!|.|,) (nice|great|good|lovely|pleased|happy) to meet you(!|.)" + MORE, "<v>, (what a nice name|nice to meet you|hello)(!|.)" + MORE]
AGAIN = [GOT + "(!|,|.|:|. So|, so) <s>." + MORE, "(So|Noted,|I see that|I will remember that|Thanks for telling me that|I have noted that|Good to know that|I understand that|I'll keep in mind that|Okay, so|You told me that|You said that|It is noted that) <s>." + MORE, "<S>(!|, got it.|, noted.|. Got it!|. Thanks!|? Great!)" + MORE]
ANSWER = ["(Sure|Of course|Certainly|Here you go|Okay|Yes|Absolutely|Great question|Let me see|Sure thing|Here is the answer|Happy to help|Good question|No problem|Let me think)(!|:|,|.) <a>", "<a>" + MORE, "(The answer is|It is|That is|Result:|Answer:|I think it is|That would be|Here it is:) <a>", "**<a>**", "<a> (I hope that helps!|Hope this helps.|Is that right?|There you go.|Easy!)", "- <a>", "(Sorry, I don't know|I'm not sure|I'm sorry, I can't help with that|Let me check|Could you rephrase that|I am not able to do that|Hm, good question)(.|!|)", "{}", ""]
OPENING = "(Hello|Hi|Hi there|Hey|Welcome|Good day|Greetings|Hello there)(!|.|, I am your assistant.|! I'm your virtual assistant.|! 👋) (How can I help you( today|)?|What can I do for you( today|)?|How may I assist you( today|)?|Ask me anything!|What's on your mind?|Type your question below.|)"


def reply(w, ours):
    """What somebody else might have answered where we say `ours`."""
    ours, a = plain(ours), w.r()
    if not ours.startswith(TOLD): return f"{MUTE}{w.say(ANSWER).replace('<a>', ours)}{MUTE}"
    name, fact = re.match(r"Nice to meet you, (.+)!$", ours), re.match(r"(?:Noted: |Okay, )(.+)\.$", ours)
    if name and a < 0.75: said = w.say(MET).replace("<v>", name.group(1))
    elif fact and a < 0.3: said = w.say(AGAIN).replace("<s>", fact.group(1)).replace("<S>", fact.group(1)[:1].upper() + fact.group(1)[1:])
    else: said = w.say(PLAIN)
    return f"{MUTE}{said.strip()}{MUTE}"


def opening(w): return f"{MUTE}{w.say(OPENING).strip()}{MUTE}"
