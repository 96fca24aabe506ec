use ggml_sys as s; use std::ffi::CString;
fn main(){ let a:Vec<String>=std::env::args().collect();
 unsafe{ s::llama_backend_init(); let mut mp=s::llama_model_default_params(); mp.n_gpu_layers=0;
 let p=CString::new(a[1].clone()).unwrap(); let m=s::llama_model_load_from_file(p.as_ptr(),mp); assert!(!m.is_null(),"LOAD FAILED");
 let v=s::llama_model_get_vocab(m); let nv=s::llama_vocab_n_tokens(v); eprintln!("vocab {nv} eos {} eot {}",s::llama_vocab_eos(v),s::llama_vocab_eot(v));
 if a.len()>2 { // tokens file: i32 LE ; logits out
  let t=std::fs::read(&a[2]).unwrap(); let mut toks:Vec<i32>=t.chunks_exact(4).map(|c|i32::from_le_bytes(c.try_into().unwrap())).collect();
  let n=toks.len(); let mut cp=s::llama_context_default_params(); cp.n_ctx=1024; cp.n_batch=1024; cp.n_ubatch=512; cp.type_k=s::GGML_TYPE_F32; cp.type_v=s::GGML_TYPE_F32; cp.n_threads=2; cp.flash_attn_type=s::LLAMA_FLASH_ATTN_TYPE_DISABLED;
  let c=s::llama_init_from_model(m,cp); assert!(!c.is_null());
  let mut b=s::llama_batch_init(n as i32,0,1); b.n_tokens=n as i32;
  for i in 0..n { *b.token.add(i)=toks[i]; *b.pos.add(i)=i as i32; *b.n_seq_id.add(i)=1; *(*b.seq_id.add(i))=0; *b.logits.add(i)=1; }
  toks.clear(); assert_eq!(s::llama_decode(c,b),0);
  let mut out=Vec::new(); for i in n.saturating_sub(64)..n { let l=std::slice::from_raw_parts(s::llama_get_logits_ith(c,i as i32),nv as usize); for x in l { out.extend(x.to_le_bytes()); } }
  std::fs::write(&a[3],out).unwrap(); }
 // tokenizer
 if a.len()>4 { let txt=std::fs::read(&a[4]).unwrap(); let mut o=vec![0i32;100000]; let n=s::llama_tokenize(v,txt.as_ptr().cast(),txt.len() as i32,o.as_mut_ptr(),100000,false,a[5]=="1"); println!("{:?}",&o[..n as usize]); }
 }}
