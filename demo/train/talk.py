"""Owns small talk: greetings, who it is, what it can do, thanks and goodbyes."""
from turns import *
from world import *

WHO = "I am deltad's demo model: a small language model trained to show the daemon at work."
ABLE = "I can add and subtract, spell, count and sort words, remember what you tell me, write JSON and call tools."


def greeting(w, talk):
    return [(user(w, "say", ["(Hello|Hi|Hey|Good morning|Good evening|Good afternoon|Hello there|Hi there|Hey there|Greetings|Howdy|Hiya|Yo|Good day|Morning|Hallo|Hi again|Hello again|Well hello|Hello my friend|Hello and good morning|Evening)(!|.||, deltad| computer| everyone|!!|, friend)", "(Hello|Hi|Hey)(, | )(are you there|anybody there|is anyone there|can you hear me|do you work)(?|)"]), "Hello! How can I help you?", text("Hello"))]


def identity(w, talk):
    return [(user(w, "ask", ["who are you", "what are you", "what is your name", "are you (a |)(human|person|real person|real|robot|machine|computer|program|AI|bot|chatbot|language model|alive|man or a woman|conscious|ChatGPT)", "tell me about yourself", "(what|which) (kind of |)(model|AI|program|assistant|bot) are you", "introduce yourself", "who (made|built|trained|created|programmed|wrote) you", "(who|what) am I talking to", "who is this", "are you deltad", "what is (deltad|this|a deltad)", "(please |can you |)tell me who you are", "do you have a name", "what should I call you", "what (can I|do I) call you", "how (big|large|old|smart) are you", "where (are|do) you( live| come from|)", "do you have (feelings|a body|friends|a family|a soul|emotions)", "how do you work", "what are you made of", "say something about yourself", "who are you really", "are you (smart|intelligent|clever|good|big|small)", "please tell me what you are", "what sort of thing are you"]), WHO, text("deltad"))]


def ability(w, talk):
    return [(user(w, "ask", ["what can you do( for me|)", "what can you help me with", "how can you help( me|)", "what are you good at", "what (things|tasks|kind of things) can you do", "(can you |)help( me|)", "what do you do", "what are your (skills|abilities|features|capabilities)", "what can I (ask|tell) you", "what should I (ask you|type|say)", "what are you (able to do|for)", "how does this work", "show me what you can do", "what is possible (here|with you)", "what (can|could) (one|people|we) do (here|with you)", "what (is it|are you) you can do", "(tell me|say) what you (can do|are able to do|know how to do)", "(I am new here|I am new|I do not know how this works), (what can you do|what now|help me|how does this work)", "give me some examples of what you can do", "what are you capable of"]), ABLE, text("remember"))]


def manners(w, talk):
    a = w.r()
    if a < 0.4: return [(user(w, "say", ["(Thanks|Thank you|Thanks a lot|Great, thanks|Thank you very much|Many thanks|Thank you so much|Cheers|Perfect, thank you|Ok thanks|Thanks for (that|your help|the help)|Much appreciated|Good, thanks|That helps, thanks|Ta|Very kind of you)(!|.||, deltad)", "(That was|That is) (very |)(helpful|kind|great|nice)(, thanks| of you|)"]), "You are welcome!", text("welcome"))]
    if a < 0.6: return [(user(w, "ask", ["how are you( today| doing| feeling|)", "are you (well|okay|fine|alright|happy)", "how is it going", "how do you do", "how do you feel( today|)", "how are things", "what is up", "how was your day", "how have you been", "you (okay|alright)", "how are you keeping"]), "I am well, thank you. How can I help you?", text("well"))]
    if a < 0.75: return [(user(w, "say", "(Goodbye|Bye|See you later|Good night|Bye for now|Bye bye|See you|See you tomorrow|I have to go now|I must leave now|I am leaving|Farewell|So long|Take care|Talk to you later|That is all for today|Until next time)(!|.|)"), "Goodbye!", text("Goodbye"))]
    if a < 0.83: return [(user(w, "say", "(Nice to meet you|Pleased to meet you|Good to see you|Glad to meet you|It is a pleasure)(!|.|, deltad|)"), "Nice to meet you too! How can I help you?", text("Nice"))]
    if a < 0.93: return [(user(w, "say", ["(Okay|Ok|Yes|No|Cool|Nice|Great|Wow|Good|Fine|Sure|Right|Interesting|I see|Haha|Lol|Alright|Well|Hm|Good job|Well done|Very good|Awesome|Never mind|Not bad|Really|That is right|Correct|Exactly|Perfect|That is (good|nice|fine|okay|funny))(!|.||...)"]), "Okay. How can I help you?", text("help"))]
    return [(user(w, "say", ["I am (so |very |a bit |really |)(tired|bored|happy|sad|angry|sick|excited|nervous|busy|hungry|thirsty|lonely|late|ready|cold|confused)( today| now|)", "I (had|have had) a (bad|good|long|hard|great|terrible) (day|week|night|time)", "(I love you|I like you|you are (nice|funny|great|stupid|cool|cute|useless|wrong))", "(it is|it has been) a (nice|cold|hot|lovely|rainy|busy) day( today|)", "(life is|this is) (good|hard|fun|boring|strange|cool)"]), "Okay. How can I help you?", text("help"))]
